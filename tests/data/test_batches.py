"""Batches: fixed shapes, pure functions of the step, every utterance seen, failures replaced."""

import subprocess
import sys
import threading

import numpy as np
import pytest
import soundfile

from tdt_jax.audio.reading import as_samples
from tdt_jax.config import Bucket
from tdt_jax.data import batches as batches_module
from tdt_jax.data.batches import ManifestBatches, iterate
from tdt_jax.data.manifest import Entry
from tdt_jax.data.selection import select
from tdt_jax.data.utterance import Batch
from tdt_jax.tokenizer import Characters

BUCKETS = (Bucket(0.5, 3, 3), Bucket(1.0, 6, 2))
SHAPES = {(3, 8960, 3), (2, 16640, 6)}
TOKENIZER = Characters("abc ")
UNITS = dict(sample_rate=16000, samples_per_frame=1280)


@pytest.fixture
def entries(tmp_path):
    """Eleven files: seven for the first bucket, four for the second; each has its own level."""
    entries = []
    for number in range(11):
        seconds, text = (0.4, "ab") if number < 7 else (0.9, "abcab")
        path = tmp_path / f"{number}.wav"
        samples = np.full(round(seconds * 16000), (number + 1) / 100)
        soundfile.write(path, samples, 16000, subtype="FLOAT")
        entries.append(Entry(path.name, path, seconds, text))
    return entries


def make(entries, *, buckets=BUCKETS, seed=0, **options):
    selection = select(entries, TOKENIZER, buckets, **UNITS)
    return ManifestBatches(selection, buckets, seed=seed, **UNITS, **options)


def same(a: Batch, b: Batch) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_an_epoch_sees_every_utterance_in_fixed_shapes(entries):
    batches = make(entries)
    assert batches.steps_per_epoch == 3 + 2
    for epoch in range(3):
        seen = []
        for step in range(5 * epoch, 5 * epoch + 5):
            batch = batches[step]
            assert (*batch.samples.shape, batch.labels.shape[1]) in SHAPES
            seen += batch.ids
            for row, name in enumerate(batch.ids):
                number = int(name.split(".")[0])
                level = batch.samples[row, : batch.num_samples[row]]
                np.testing.assert_allclose(level, (number + 1) / 100, rtol=1e-6)
                labels = batch.labels[row, : batch.num_labels[row]]
                assert TOKENIZER.decode(labels) == batch.texts[row] == entries[number].text
        assert set(seen) == {entry.id for entry in entries}
        assert len(seen) == 9 + 4  # seven utterances fill three batches of three with two repeated


def test_epochs_and_seeds_differ(entries):
    def ids(seed, epoch):
        batches = make(entries, seed=seed)
        return [batches[step].ids for step in range(5 * epoch, 5 * epoch + 5)]

    assert ids(0, 0) == ids(0, 0)
    assert ids(0, 0) != ids(0, 1)
    assert ids(0, 0) != ids(1, 0)


AUGMENTED = dict(speed=(0.9, 1.0, 1.1), silence_probability=0.7, silence_seconds=0.2)


def test_a_batch_is_a_function_of_its_step(entries):
    forwards, backwards = make(entries, **AUGMENTED), make(entries, **AUGMENTED)
    expected = [forwards[step] for step in range(12)]
    for step in reversed(range(12)):
        assert same(backwards[step], expected[step])
    leading = np.concatenate([batch.num_leading_samples for batch in expected])
    assert 0 < np.count_nonzero(leading) < len(leading) / 2  # silence before some of them
    with pytest.raises(IndexError):
        forwards[-1]


def test_iterate_resumes_by_the_step(entries):
    whole = list(iterate(make(entries, **AUGMENTED), stop=12))
    assert [step for step, _ in whole] == list(range(12))
    resumed = list(iterate(make(entries, **AUGMENTED), start=7, stop=12, num_threads=3, prefetch=1))
    assert [step for step, _ in resumed] == list(range(7, 12))
    for (_, batch), (_, again) in zip(whole[7:], resumed, strict=True):
        assert isinstance(again, Batch) and type(again.ids) is tuple and same(batch, again)
    assert list(iterate(make(entries), start=3, stop=3)) == []


def test_iterate_without_end_stops_when_closed(entries):
    num_threads = threading.active_count()
    endless = iterate(make(entries), start=10)
    assert [next(endless)[0] for _ in range(3)] == [10, 11, 12]
    endless.close()
    for thread in threading.enumerate():
        if "grain" in thread.name:
            thread.join(timeout=5)
    assert threading.active_count() <= num_threads


class Broken:
    def __getitem__(self, step):
        if step == 2:
            raise ValueError("step two is broken")
        return step


def test_iterate_raises_what_a_thread_raised():
    iterator = iterate(Broken(), stop=4)
    assert [next(iterator), next(iterator)] == [(0, 0), (1, 1)]
    with pytest.raises(ValueError, match="step two is broken"):
        next(iterator)


@pytest.mark.slow
def test_a_program_that_iterates_ends_and_loads_little():
    """Threads do not hold the interpreter; packages of data that is not used are not imported."""
    program = (
        "import sys, tdt_jax.data.task, tdt_jax.cli.main\n"
        "print([name for name in ('tensorflow_datasets', 'array_record', 'sacrebleu') "
        "if name in sys.modules])\n"
        "from tdt_jax.data.batches import iterate\n"
        "class Steps:\n"
        "    def __getitem__(self, step): return step\n"
        "iterator = iterate(Steps())\n"
        "print(next(iterator), next(iterator))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    expected = (0, "[]\n(0, 0) (1, 1)\n", "")
    assert (result.returncode, result.stdout, result.stderr) == expected


def test_failing_files_are_replaced_and_counted(entries):
    entries[2].path.write_bytes(b"not audio")
    soundfile.write(entries[8].path, np.zeros(30000), 16000)  # its manifest says 0.9 s
    batches, again = make(entries), make(entries)
    selected = [batches[step] for step in range(5)]
    assert set(batches.failed) == {"2.wav", "8.wav"}
    assert "30000 samples where its bucket holds 16640" in batches.failed["8.wav"]
    for batch in selected:
        assert (batch.num_samples > 0).all() and not {"2.wav", "8.wav"} & set(batch.ids)
    for step in (4, 2, 0, 3, 1):  # the replacement does not depend on what failed before
        assert same(again[step], selected[step])


def test_utterances_of_one_frame(tmp_path):
    """What is too short to be aligned is replaced; no augmentation takes the last frame."""
    buckets = (Bucket(0.08, 3, 4),)
    for name, size in (("a", 321), ("b", 1280), ("short", 319)):
        soundfile.write(tmp_path / f"{name}.wav", np.full(size, 0.1), 16000)
    entries = [Entry(n, tmp_path / f"{n}.wav", 0.08, "ab") for n in ("a", "b", "short")]
    batches = make(entries, buckets=buckets, speed=(1.1,))
    seen = {}
    for step in range(8):
        batch = batches[step]
        assert batch.samples.shape == (4, 1280) and batch.num_labels.tolist() == [2] * 4
        seen |= dict(zip(batch.ids, batch.num_samples.tolist(), strict=True))
    # 321 samples at 1.1 times the speed would be 292: a single feature frame
    assert seen.keys() == {"a", "b"} and seen["a"] == 321
    assert seen["b"] == pytest.approx(1280 / 1.1, abs=2)
    assert "short has 319 samples, too few for its 2 labels" in batches.failed["short"]
    as_ctc = make(entries, buckets=buckets, label_limit=lambda frames: frames)
    with pytest.raises(ValueError, match=r"none of the 3 utterances .* can be read"):
        as_ctc[0]


def test_failures_are_logged_once(entries, caplog):
    entries[2].path.write_bytes(b"not audio")
    batches = make(entries)
    for step in range(10):
        batches[step]
    (message,) = [record.message for record in caplog.records]
    assert message == f"replaced 2.wav: {batches.failed['2.wav']}"


EVEN = (Bucket(0.5, 3, 4), Bucket(1.0, 6, 8))


def make_even(entries):
    return make(entries, buckets=EVEN, seed=3, **AUGMENTED)


def share(index, count):
    """The rows of one of `count` processes."""
    return lambda size: range(index * size // count, (index + 1) * size // count)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_processes_share_a_batch(entries, count):
    """Each loads its rows only; together they have the batch, bad files or not."""
    entries[3].path.write_bytes(b"not audio")
    entries[9].path.write_bytes(b"not audio")
    whole = make_even(entries)
    # Every process has batches of its own; they meet bad files at different steps.
    shards = [
        dict(iterate(make_even(entries), start=index, stop=10, rows_of=share(index, count)))
        for index in range(count)
    ]
    for step in range(count - 1, 10):
        parts = [shard[step] for shard in shards]
        assert len({part.samples.shape for part in parts}) == 1  # of the same bucket
        joined = Batch(
            *(np.concatenate(arrays) for arrays in zip(*(part[:5] for part in parts), strict=True)),
            ids=sum((part.ids for part in parts), ()),
            texts=sum((part.texts for part in parts), ()),
        )
        assert same(joined, whole[step])


def test_a_process_reads_its_rows_only(entries, monkeypatch):
    read = []

    def reading(audio, rate):
        read.append(audio.path.name)
        return as_samples(audio, rate)

    monkeypatch.setattr(batches_module, "as_samples", reading)
    batches = make_even(entries)
    ((_, part),) = iterate(batches, stop=1, rows_of=share(1, 4))
    assert len(read) == len(part.ids) == EVEN[batches.bucket_index(0)].batch_size // 4
    parts = [dict(iterate(batches, stop=3, rows_of=share(index, 4))) for index in range(4)]
    seen = [name for step in range(3) for part in parts for name in part[step].ids]
    assert set(seen) == {entry.id for entry in entries} and len(seen) == 4 + 4 + 8


def test_repeated_ids_fail_alone(entries):
    """Of two entries with one id, the bad one is replaced; the good one is used either way."""
    entries[2].path.write_bytes(b"not audio")
    entries[4] = entries[4]._replace(id="2.wav")
    batches = make(entries)
    first = [batches[step] for step in range(5)]
    again = make(entries)
    assert all(same(again[step], first[step]) for step in (4, 2, 0, 3, 1))
    assert "2.wav" in {name for batch in first for name in batch.ids}


def test_rows_in_any_order(entries):
    whole, part = make_even(entries)[0], make_even(entries).rows(0, [3, 1])
    for array, few in zip(whole[:4], part[:4], strict=True):
        np.testing.assert_array_equal(few, array[[3, 1]])
    assert part.ids == (whole.ids[3], whole.ids[1])
    for rows in ([2, 9], [-1], []):
        with pytest.raises(IndexError, match="there are no rows"):
            make_even(entries).rows(0, rows)


def test_a_bucket_without_a_readable_file(entries):
    for entry in entries[7:]:
        entry.path.write_bytes(b"not audio")
    batches = make(entries)
    with pytest.raises(ValueError, match=r"none of the 4 utterances of bucket 1 .*not audio"):
        for step in range(5):
            batches[step]


def test_nothing_to_train_on(entries):
    with pytest.raises(ValueError, match=r"nothing to train on: 0 .* skipped 1: 1 without a file"):
        make([entries[0]._replace(path=entries[0].path / "gone")])


def test_augmentation_changes_lengths_within_the_bucket(entries):
    batches = make(entries, **AUGMENTED)
    lengths = np.concatenate([batches[step].num_samples for step in range(40)])
    assert len(set(lengths.tolist())) > 20 and lengths.max() <= 16640
    # the first bucket holds 8960 samples: 6400 slowed to 7111, sped up to 5818, plus 3200 at most
    assert lengths.min() == pytest.approx(6400 / 1.1, abs=2)


def test_speed_that_does_not_fit_is_left_out(entries):
    batches = make(entries, speed=(0.5,))
    assert {int(n) for step in range(5) for n in batches[step].num_samples} == {6400, 14400}
