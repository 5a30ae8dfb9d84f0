"""Parts of files: the right samples by a seek or without, and whoever promises too much is told."""

import itertools
import json

import numpy as np
import pytest
import soundfile

from tdt_jax.audio import segment as segment_module
from tdt_jax.audio.errors import AudioError
from tdt_jax.audio.reading import as_samples, audio_blocks, read_audio
from tdt_jax.audio.segment import Segment
from tdt_jax.cli import main
from tdt_jax.config import Bucket
from tdt_jax.data.batches import ManifestBatches
from tdt_jax.data.manifest import read_manifest
from tdt_jax.data.selection import select
from tdt_jax.data.sources import read_source
from tdt_jax.tokenizer import Characters

RATE = 16000
FORMATS = {
    "a.wav": {},
    "a.flac": {},
    "a.ogg": dict(format="OGG", subtype="VORBIS"),
    "a.opus": dict(format="OGG", subtype="OPUS"),
    "a.mp3": dict(format="MP3"),
    "gsm.wav": dict(format="WAV", subtype="GSM610"),  # cannot be sought in
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four seconds, each a tone of its own, in many formats."""
    path = tmp_path_factory.mktemp("segments")
    time = np.arange(RATE) / RATE
    tones = [0.3 * np.sin(2 * np.pi * hertz * time) for hertz in (300, 500, 700, 900)]
    for name, options in FORMATS.items():
        soundfile.write(path / name, np.concatenate(tones), RATE, **options)
    soundfile.write(path / "stereo.wav", np.repeat(np.concatenate(tones), 3)[:, None] * [1, 0.5],
                    3 * RATE)  # fmt: skip
    return path


def hertz(samples):
    return np.argmax(np.abs(np.fft.rfft(samples))) * RATE / len(samples)


@pytest.mark.parametrize("name", FORMATS)
def test_a_segment_is_what_the_whole_file_has_there(folder, name):
    whole = read_audio(folder / name)
    for offset, duration in ((0.0, 1.0), (1.0, 1.0), (1.25, 0.5), (3.0, 1.0), (2.5, None)):
        samples = as_samples(Segment(folder / name, offset, duration))
        first = round(offset * RATE)
        last = len(whole) if duration is None or offset == 3 else first + round(duration * RATE)
        np.testing.assert_allclose(samples, whole[first:last], atol=2e-3)
        np.testing.assert_array_equal(
            np.concatenate(list(audio_blocks(Segment(folder / name, offset, duration)))), samples
        )


def test_another_rate_and_two_channels(folder):
    samples = as_samples(Segment(folder / "stereo.wav", 2.0, 1.0))
    assert len(samples) == RATE and hertz(samples) == 700
    assert np.abs(samples).max() == pytest.approx(0.3 * 0.75, rel=0.1)


def test_only_what_is_needed_is_decoded(folder, monkeypatch):
    """A thousand segments of an hour must not take a thousand hours."""
    read = []

    class Counting(soundfile.SoundFile):
        def read(self, frames=-1, **options):
            read.append(frames)
            return super().read(frames, **options)

    monkeypatch.setattr(soundfile, "SoundFile", Counting)
    assert len(as_samples(Segment(folder / "a.flac", 2.0, 0.5))) == RATE / 2
    assert sum(read) <= 1.25 * RATE  # of 4


def test_rounding_does_not_cut_the_end(folder):
    """Up to 0.1 s of a file belong to the segment before; without an offset up to 1 s."""
    path = folder / "a.wav"
    for offset, duration, expected in (
        (0.0, 3.95, 4.0), (0.0, 3.8, 3.8), (3.0, 0.95, 1.0), (3.0, 1.05, 1.0), (1.0, 2.0, 2.0),
        (None, 3.1, 4.0), (None, 4.9, 4.0), (None, None, 4.0),
    ):  # fmt: skip
        assert len(as_samples(Segment(path, offset, duration))) == expected * RATE
        assert Segment(path, offset, duration).is_whole() == (expected == 4.0)


def test_a_length_that_is_far_from_the_manifests_is_mentioned(folder, caplog, monkeypatch):
    monkeypatch.setattr(segment_module, "_warnings", set())
    path = folder / "a.wav"
    for _ in range(2):
        assert len(as_samples(Segment(path, None, 2.5))) == 2.5 * RATE
    assert len(as_samples(Segment(path, None, 9.0))) == 4 * RATE
    assert caplog.messages == [
        f"{path} goes on after the 2.5 s that its manifest says; only those are used",
        f"{path} lasts 4.00 s, its manifest says 9 s",
    ]
    for duration in range(10, 30):
        as_samples(Segment(path, None, duration))
    assert len(caplog.messages) == 10 and caplog.messages[-1].endswith("(and so on)")


def test_what_is_not_there(folder, tmp_path):
    path = folder / "a.wav"
    for name, offset, duration, message in (
        ("a.wav", 4.0, 1.0, "holds no samples after 4 s"),
        ("gsm.wav", 5.0, 1.0, "holds no samples after 5 s"),
        ("a.wav", 5.0, None, "holds no samples after 5 s"),
        ("a.wav", 1e8, 1.0, "holds no samples after"),
        ("a.wav", 3.0, 1.2, "is truncated: 1.2 s from 3 s on are promised, it holds 1.00 s"),
        ("gone.wav", 0.0, 1.0, "no audio file at"),
    ):
        with pytest.raises(AudioError, match=f"{name} .*{message}|{message} .*{name}"):
            as_samples(Segment(folder / name, offset, duration))
    cut = tmp_path / "cut.wav"
    cut.write_bytes(path.read_bytes()[: RATE * 2 * 3])  # the header promises a second more
    assert len(as_samples(Segment(cut, 1.0, 1.5))) == 1.5 * RATE
    for offset, duration in ((2.0, 1.5), (2.0, None), (None, 4.0)):
        with pytest.raises(AudioError, match="is truncated"):
            as_samples(Segment(cut, offset, duration))
    spoilt = np.zeros(RATE, np.float32)
    spoilt[100] = np.nan
    soundfile.write(tmp_path / "nan.wav", spoilt, RATE, subtype="FLOAT")
    assert not as_samples(Segment(tmp_path / "nan.wav", 0.1, 0.5)).any()
    with pytest.raises(AudioError, match=r"nan\.wav holds 1 samples that are not finite"):
        as_samples(Segment(tmp_path / "nan.wav", 0.0, 0.5))


@pytest.mark.parametrize(
    "bounds", [(-1.0, 1.0), (float("nan"), 1.0), (float("inf"), 1.0), (0.0, 0.0), (0.0, -1.0),
               (0.0, float("nan")), (None, float("inf"))]
)  # fmt: skip
def test_impossible_bounds(bounds):
    with pytest.raises(ValueError, match=r"a\.wav must be"):
        Segment("a.wav", *bounds)


@pytest.fixture
def manifest(folder, tmp_path):
    """Each second of a.flac, and one after its end."""
    lines = [
        {"audio_filepath": str(folder / "a.flac"), "offset": i, "duration": 1.0, "text": text}
        for i, text in enumerate(("a", "b", "c", "ab", "abc"))
    ]
    path = tmp_path / "segments.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


TONES = {"a": 300, "b": 500, "c": 700, "ab": 900}


def test_training_reads_segments(manifest):
    buckets = (Bucket(1.2, 4, 2),)
    units = dict(sample_rate=RATE, samples_per_frame=1280)
    selection = select(read_manifest(manifest), Characters("abc"), buckets, **units)
    assert len(selection.entries) == 5 and not selection.skipped
    batches = ManifestBatches(selection, buckets, seed=0, **units)
    seen = set()
    for step, row in itertools.product(range(6), range(2)):
        batch = batches[step]
        assert batch.num_samples[row] == RATE
        assert hertz(batch.samples[row, :RATE]) == TONES[batch.texts[row]]
        seen.add(batch.texts[row])
    assert seen == TONES.keys()
    (why,) = batches.failed.values()
    assert "holds no samples after 4 s" in why


def test_a_dataset_holds_the_segments_alone(folder, manifest, tmp_path, capsys):
    data = tmp_path / "data"
    assert main.main(["prepare", "manifest", str(manifest), str(data), "--split", "train"]) == 1
    assert "left out: " in capsys.readouterr().err
    records = read_source(f"{data}:train")
    assert [record.text for record in records] == list(TONES)
    name = str(folder / "a.flac")
    assert [record.id for record in records] == [name, f"{name}@1.0", f"{name}@2.0", f"{name}@3.0"]
    for record in records:
        samples = record.audio(RATE)
        assert record.seconds == 1.0 and len(samples) == RATE
        assert hertz(samples) == TONES[record.text]
    # Other bounds are another dataset.
    manifest.write_text(manifest.read_text().replace('"offset": 1,', '"offset": 1.5,'))
    assert main.main(["prepare", "manifest", str(manifest), str(data), "--split", "train"]) == 2
    assert "of other recordings" in capsys.readouterr().err
    whole = {"audio_filepath": name, "duration": 4.0, "offset": 0.0, "text": "abc"}
    manifest.write_text(json.dumps(whole))
    assert main.main(["prepare", "manifest", str(manifest), str(data), "--split", "whole"]) == 0
    (record,) = read_source(f"{data}:whole")
    stored = record.dataset[0]["speech"].bytes_list.value[0]
    assert stored == (folder / "a.flac").read_bytes()
