"""Transcripts: times, words, pieces of long audio, and one answer whatever the batch."""

import dataclasses
import io
import time
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
import soxr
from models import hypothesis, make_recogniser, noise, spell, with_tags
from run_config import get_config

import tdt_jax as tdt
from tdt_jax import tokenizer as tokenizers
from tdt_jax.audio.reading import AudioError
from tdt_jax.decoding.hypothesis import Hypothesis
from tdt_jax.inference import transcription
from tdt_jax.inference.long_form import cut
from tdt_jax.inference.recognition import decode_samples_on_mesh, devices_of
from tdt_jax.inference.transcript import to_transcript
from tdt_jax.inference.transcription import shapes, transcribe_each, warm_up
from tdt_jax.recogniser import PIECE_SECONDS
from tdt_jax.runtime import process, sharding


@pytest.fixture(scope="module")
def recogniser():
    return make_recogniser()


def test_words_carry_times_and_their_least_confidence():
    characters = make_recogniser(tokenizer=tokenizers.train_characters(["ab c."]))
    labels = spell(characters, "a", "b", ".", " ", "c")
    found = to_transcript(hypothesis(labels, [2, 2, 5, 20, 21], [0, 3, 2, 1, 4]), characters, 2.0)
    assert found.text == "ab. c" and found.duration == 2.0
    assert [(t.text, round(t.start, 3), round(t.end, 3)) for t in found.tokens] == [
        ("a", 0.16, 0.16),  # duration 0, and "b" starts at the same frame
        ("b", 0.16, 0.4),
        (".", 0.4, 0.4),  # punctuation has no length
        ("c", 1.68, 2.0),
    ]
    words = [(w.text, round(w.start, 3), round(w.end, 3)) for w in found.words]
    assert words == [("ab.", 0.16, 0.4), ("c", 1.68, 2.0)]
    np.testing.assert_allclose([w.probability for w in found.words], [0.5, 1.0], rtol=1e-6)
    vocab = characters.config.vocab_size  # entropy -log(p): exp(-H) = p
    np.testing.assert_allclose(found.words[0].confidence, ((vocab + 1) * 0.5 - 1) / vocab)
    assert found.words[1].confidence == 1.0
    assert [(s.text, round(s.start, 3)) for s in found.segments] == [("ab.", 0.16), ("c", 1.68)]


def test_segments_end_with_sentences_and_pauses():
    characters = make_recogniser(tokenizer=tokenizers.train_characters(["Mr. Ox? it's\" no"]))
    text = "Mr. Ox?\" it's no"
    labels = characters.tokenizer.encode(text)
    times = np.arange(len(labels)) + 20 * (np.arange(len(labels)) >= text.index("no"))
    found = to_transcript(hypothesis(labels, times, np.ones_like(times)), characters, 9.0)
    assert [segment.text for segment in found.segments] == ['Mr. Ox?"', "it's", "no"]
    assert [len(segment.words) for segment in found.segments] == [2, 1, 1]
    for segment in found.segments:
        assert segment.confidence == min(word.confidence for word in segment.words)
        assert (segment.start, segment.end) == (segment.words[0].start, segment.words[-1].end)


def test_times_do_not_leave_the_audio():
    characters = make_recogniser(tokenizer=tokenizers.train_characters(["ab"]))
    found = to_transcript(hypothesis(spell(characters, "a", "b"), [0, 6], [1, 4]), characters, 0.5)
    assert found.tokens[1].end == 0.5 and found.words[-1].end == 0.5


def test_the_same_whatever_the_batch(recogniser):
    audio = [noise(s, i) for i, s in enumerate((0.5, 2.0, 3.1, 1.2, 4.9))]
    together = tdt.transcribe(recogniser, audio, batch_seconds=11.0)
    alone = [tdt.transcribe(recogniser, [a], batch_seconds=0.1)[0] for a in audio]
    assert any(len(t.words) > 1 for t in alone)
    for a, b in zip(together, alone, strict=True):
        assert a.text == b.text and a.duration == b.duration
        assert [(t.text, t.start, t.end) for t in a.tokens] == [
            (t.text, t.start, t.end) for t in b.tokens
        ]


def test_files_and_arrays_agree(recogniser, tmp_path):
    samples = noise(2.0)
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    stereo = np.stack([samples, samples], axis=1)
    a, b, c = tdt.transcribe(recogniser, [tmp_path / "a.wav", samples, stereo])
    assert a == b == c


def test_tags_are_shown_on_demand():
    recogniser, samples = with_tags(), noise(5.0)
    (hidden,) = tdt.transcribe(recogniser, [samples], piece_seconds=2.0)
    (shown,) = tdt.transcribe(recogniser, [samples], piece_seconds=2.0, keep_tags=True)
    tags = [word for word in shown.words if word.text[0] == "<"]
    assert "<|ja|>" in {word.text for word in tags} and all(w.start == w.end for w in tags)
    assert {word.text for word in shown.words} - {"<|ja|>", "<unk>", "<|endoftext|>"} > {"it"}
    assert len(hidden.words) > 3 and "<" not in hidden.text
    assert hidden.language == shown.language == "ja"


def test_nothing_to_hear(recogniser):
    """Shorter than a frame, and nothing at all."""
    (found,) = tdt.transcribe(recogniser, [np.zeros(100, np.float32)])
    assert found.text == "" and found.words == [] and found.segments == []
    assert tdt.transcribe(recogniser, []) == []


def test_digital_silence_around_speech_changes_times_only(recogniser):
    """Though features are normalised by all that a piece holds."""
    recording, silence = noise(3.0), np.zeros(44000, np.float32)
    around = np.concatenate([silence, recording, silence])
    between = np.concatenate([recording, silence, recording])
    alone, later, twice = tdt.transcribe(recogniser, [recording, around, between])
    assert alone.words and later.text == alone.text
    assert twice.text == f"{alone.text} {alone.text}"
    assert [w.confidence for w in later.words] == [w.confidence for w in alone.words]
    assert later.duration == 8.5 and twice.duration == 8.75
    starts = np.array([w.start for w in alone.words])
    np.testing.assert_allclose([w.start for w in later.words], starts + 2.75)
    np.testing.assert_allclose([w.start for w in twice.words], [*starts, *(starts + 5.75)])


def test_bad_audio_is_an_error_or_reported(recogniser, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    audio = [noise(1.0), tmp_path / "bad.wav", tmp_path / "none.wav", np.full(900, np.nan)]
    with pytest.raises(AudioError, match=r"bad\.wav"):
        tdt.transcribe(recogniser, audio)
    failed = {}
    found = tdt.transcribe(recogniser, audio, failed=failed)
    assert [t is None for t in found] == [False, True, True, True]
    assert sorted(failed) == [1, 2, 3] and "none.wav" in failed[2]


def test_one_program_a_shape(recogniser):
    """A folder of mixed lengths, and what was compiled before."""
    options = dict(batch_seconds=11.0)
    table = shapes(recogniser.config, 11.0)
    assert [(b.seconds, b.batch_size) for b in table] == [
        (2.56, 1), (2.56, 4), (5.12, 1), (5.12, 2), (10.24, 1), (20.48, 1), (30.72, 1)
    ]  # fmt: skip
    assert list(warm_up(recogniser, **options)) == table
    before = process.compile_seconds()
    programs = tdt.encode._cache_size(), tdt.greedy_decode._cache_size()
    audio = [
        noise(s, i) for i, s in enumerate((0.5, 2.0, 4.0, 1.2, 4.9, 8.0, 2.5, 0.1, 12.0, 40.0))
    ]
    assert all(tdt.transcribe(recogniser, audio, **options))
    assert (tdt.encode._cache_size(), tdt.greedy_decode._cache_size()) == programs
    assert process.compile_seconds() == before
    start = time.perf_counter()
    jax.jit(lambda x: jax.jit(jnp.sin)(x) + 1)(1.0)
    assert before < process.compile_seconds() < before + time.perf_counter() - start


def test_an_rnnt_transcribes_too():
    rnnt = make_recogniser(durations=None, blank_bias=5.0)
    (found,) = tdt.transcribe(rnnt, [noise(2.0)])
    assert found.tokens and all(t.start <= t.end <= 2.0 for t in found.tokens)
    assert jnp.all(jnp.diff(jnp.array([t.start for t in found.tokens])) >= 0)


def test_a_tokenizer_of_another_size_is_refused(recogniser):
    with pytest.raises(ValueError, match="the tokenizer has 3 pieces, the model"):
        tdt.Recogniser(recogniser.model, tokenizers.train_characters(["ab"]))


def test_with_local_attention_long_audio_goes_in_one_piece(recogniser):
    """No cut: what is heard is what the encoder and the decoder make of the whole."""
    local = tdt.with_attention_context(recogniser, (16, 8))
    samples = noise(40.0)
    (transcript,) = tdt.transcribe(local, [samples])
    padded = np.zeros((1, round(61.44 * 16000)), np.float32)
    padded[0, : len(samples)] = samples
    features = tdt.log_mel(padded, np.array([len(samples)]))
    decoded = tdt.greedy_decode(local.model, *tdt.encode(local.model, *features))
    expected = decoded.labels[0, : int(decoded.num_labels[0])]
    assert transcript.text == local.tokenizer.decode(expected)
    (cut,) = tdt.transcribe(recogniser, [samples])
    assert cut.text != transcript.text and cut.duration == transcript.duration == 40.0


def test_shapes_hold_two_hours_with_local_attention_only(recogniser):
    assert shapes(recogniser.config)[-1].seconds == PIECE_SECONDS
    local = tdt.with_attention_context(recogniser, (128, 128))
    assert shapes(local.config)[-1].seconds >= 7200
    assert shapes(local.config, piece_seconds=100.0)[-1].seconds == 100.0
    for sizes in ((0, None), (None, 0.5), (np.nan, None), (np.inf, None), (None, 1e309)):
        with pytest.raises(ValueError, match="batch_seconds must be above 0 and piece_seconds"):
            shapes(recogniser.config, *sizes)


def test_pieces_are_what_the_model_was_trained_on(recogniser, tmp_path):
    """A run's longest bucket, kept when it is saved again; half a minute for others."""
    config = dataclasses.replace(get_config(), model=recogniser.config)
    tdt.save(recogniser, tmp_path / "run", config=config)
    run = tdt.load(tmp_path / "run")
    assert shapes(run.config)[-1].seconds == run.config.piece_seconds == 8.96
    tdt.save(run, tmp_path / "again")
    assert tdt.load(tmp_path / "again").config.piece_seconds == 8.96
    tdt.save(recogniser, tmp_path / "other")
    other = tdt.load(tmp_path / "other").config
    assert other.piece_seconds is None and shapes(other)[-1].seconds == PIECE_SECONDS
    with pytest.raises(ValueError, match="piece_seconds must be >= 1 or none, got 0"):
        dataclasses.replace(recogniser.config, piece_seconds=0.0)


# A recogniser with perfect hearing: a word is a burst, its amplitude says which

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


@pytest.fixture
def listener(monkeypatch):
    """Hears bursts that are wholly in its piece, and half a word of those that are not."""
    characters = make_recogniser(tokenizer=tokenizers.train_characters([" ".join(WORDS)]))
    batches = []

    def hear(model, samples, num_samples, *, decoder):
        batches.append(samples.shape)
        rows = [
            _burst_labels(row[:size], characters.tokenizer)
            for row, size in zip(samples, num_samples, strict=True)
        ]
        size = max(1, *(len(labels) for labels, _ in rows))
        table = np.zeros((len(rows), size), np.int32)
        times = np.zeros_like(table)
        for row, (labels, starts) in enumerate(rows):
            table[row, : len(labels)], times[row, : len(labels)] = labels, starts
        count = np.array([len(labels) for labels, _ in rows])
        real = np.zeros(table.shape, np.float32)
        return Hypothesis(table, count, times, np.ones_like(table), real, real, count)

    monkeypatch.setattr(transcription, "decode_samples_on_mesh", decode_samples_on_mesh)
    return characters, batches


def test_several_devices_hear_what_one_hears(recogniser):
    """Rows of a batch on devices of their own; batches that the recordings do not fill."""
    audio = [noise(seconds, seed) for seed, seconds in enumerate((1.0, 2.2, 2.4, 0.5, 4.0, 23.0))]
    mesh = sharding.make_mesh(jax.devices()[:4], fsdp=2)
    everywhere = jax.device_put(recogniser.model, sharding.replicated(mesh))
    assert (devices_of(recogniser.model), devices_of(everywhere)) == (1, 4)
    several = tdt.Recogniser(everywhere, recogniser.tokenizer)
    options = dict(piece_seconds=5.12)
    one, all_four = (tdt.transcribe(each, audio, **options) for each in (recogniser, several))
    assert [each.text for each in one] == [each.text for each in all_four]
    assert [[(w.start, w.end) for w in each.words] for each in one] == [
        [(w.start, w.end) for w in each.words] for each in all_four
    ]
    samples = np.stack([noise(1.0, seed) for seed in range(4)])
    found = decode_samples_on_mesh(everywhere, samples, np.full(4, 16000, np.int32))
    assert len(found.labels.sharding.device_set) == 4
    with pytest.raises(ValueError, match="a batch of 3 cannot be split among 4 devices"):
        decode_samples_on_mesh(everywhere, samples[:3], np.full(3, 16000, np.int32))


def _burst_labels(samples, tokenizer):
    loud = np.abs(np.asarray(samples)) > 0.05
    edges = np.flatnonzero(np.diff(np.pad(loud.astype(np.int8), 1)))
    labels, times = [], []
    for first, end in edges.reshape(-1, 2):
        word = WORDS[round(float(samples[first]) * 20) - 2]
        if end - first < 0.99 * LENGTH:  # cut: only a part is heard
            word = word[: len(word) // 2]
        spelt = tokenizer.encode(word)
        labels += [*spelt, tokenizer.pieces.index(" ")]
        at = np.linspace(first, end - 1280, len(spelt) + 1) / 1280
        times += np.maximum(at, first / 1280).astype(int).tolist()
    return labels, times


LENGTH = 6400  # samples of a burst: 5 frames


def bursts(seconds, seed, rate=16000):
    """Samples and their words: bursts close together, some pauses, and never two cuts alike."""
    rng = np.random.default_rng(seed)
    samples = rng.uniform(-1, 1, round(seconds * rate)).astype(np.float32) * 1e-3
    words, at = [], rng.integers(0, 3000)
    while at + LENGTH < len(samples):
        number = int(rng.integers(len(WORDS)))
        samples[at : at + LENGTH] = (number + 2) / 20
        words.append(WORDS[number])
        at += LENGTH + int(rng.choice([400, 1600, 3200, 16000], p=[0.3, 0.4, 0.2, 0.1]))
    return samples, words


@pytest.mark.parametrize("seed", range(6))
def test_no_word_is_lost_or_doubled_in_long_audio(listener, seed):
    recogniser, batches = listener
    samples, words = bursts(150.0 + 7 * seed, seed)
    (found,) = tdt.transcribe(recogniser, [samples], batch_seconds=40.0)
    assert found.text.split() == words
    starts = [word.start for word in found.words]
    assert starts == sorted(starts) and found.duration == len(samples) / 16000
    assert all(word.start <= word.end <= found.duration for word in found.words)
    assert max(seconds for _, seconds in batches) == 30.72 * 16000


def test_a_word_at_every_cut_is_heard_once(listener):
    """Speech without a pause: every cut is inside a word, which only the overlap hears whole."""
    recogniser, _ = listener
    numbers = np.random.default_rng(0).integers(len(WORDS), size=150)
    samples = np.concatenate([np.full(LENGTH + 64, (n + 2) / 20, np.float32) for n in numbers])
    samples += 0.001 * (-1) ** np.arange(len(samples), dtype=np.float32)  # a constant is silence
    samples[:: LENGTH + 64] = samples[1 :: LENGTH + 64] = 0  # a gap too short to cut in
    (found,) = tdt.transcribe(recogniser, [samples], piece_seconds=10.0)
    assert found.text.split() == [WORDS[n] for n in numbers]


def test_brief_words_between_long_silences_keep_their_times(listener):
    """Heard together, with half a second of zeros for the silence that is in the recording."""
    recogniser, batches = listener
    samples = np.zeros(60 * 16000, np.float32)
    starts = [3.0, 9.5, 10.2, 31.0, 58.0]
    ripple = 0.001 * (-1) ** np.arange(LENGTH)  # a constant is silence
    for number, start in enumerate(starts):
        first = round(start * 16000)
        samples[first : first + LENGTH] = (number + 2) / 20 + ripple
    (found,) = tdt.transcribe(recogniser, [samples])
    assert [word.text for word in found.words] == WORDS[:5]
    np.testing.assert_allclose([word.start for word in found.words], starts, atol=0.09)
    lengths = [word.end - word.start for word in found.words]
    assert min(lengths) > 0.2 and max(lengths) < 0.4  # as long as the listener says
    assert found.duration == 60.0 and len(batches) == 1  # once, in one piece


def test_a_long_recording_does_not_wait_for_a_rare_one(listener):
    """A batch that fills slowly starts at last; what is finished is given."""
    recogniser, _ = listener
    lengths = [4.0, *[1.0] * 60]
    heard = transcribe_each(
        recogniser, (bursts(s, i)[0] for i, s in enumerate(lengths)), batch_seconds=11.0
    )
    order = [position for position, _ in heard]
    assert order.index(0) < 30 and sorted(order) == list(range(61))


def test_one_recording_gives_one_transcript(recogniser, tmp_path):
    """In whatever form; a list of one gives a list."""
    samples = noise(1.0)
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    data = (tmp_path / "a.wav").read_bytes()
    (expected,) = tdt.transcribe(recogniser, iter([samples]))
    for audio in (samples, tmp_path / "a.wav", data, io.BytesIO(data), (16000, samples),
                  (samples, 16000), {"array": samples, "sampling_rate": 16000},
                  jnp.asarray(samples), lambda rate: samples):  # fmt: skip
        assert tdt.transcribe(recogniser, audio) == expected
        assert tdt.transcribe(recogniser, [audio]) == [expected]
    failed = {}
    assert tdt.transcribe(recogniser, "gone.wav", failed=failed) is None
    assert failed == {0: "no audio file at gone.wav"}


def test_arrays_at_another_rate(recogniser):
    samples = noise(2.0)
    slow = soxr.resample(samples, 16000, 8000)
    found = tdt.transcribe(recogniser, [slow, (16000, samples), samples[:8000]], sample_rate=8000)
    assert [each.duration for each in found] == [2.0, 2.0, 1.0]
    assert tdt.transcribe(recogniser, (8000, slow)).text == found[0].text
    assert tdt.transcribe(recogniser, samples).text == found[1].text


class Unreadable(io.BytesIO):
    def read(self, *_):
        raise RuntimeError("the network is down")

    readinto = read


def test_every_bad_item_reaches_failed(recogniser):
    bad = [None, 5, object(), (i for i in "ab"), Unreadable(b"RIFF"), io.StringIO("a"), b"", {},
           {"array": "abc", "sampling_rate": 8000}, {"path": None}, (0, noise(1.0)), "a\0b",
           b"RIFF", [["x"]], np.array("a"), np.zeros(9, object), ("a.wav", 16000), tdt,
           lambda rate: 1 / 0, np.zeros((2, 3, 4)), (noise(1.0), 16000, 1)]  # fmt: skip
    failed = {}
    found = tdt.transcribe(recogniser, [*bad, noise(1.0)], failed=failed)
    assert found[:-1] == [None] * len(bad) and found[-1] is not None
    assert sorted(failed) == list(range(len(bad))) and all(failed.values())
    for item in bad:
        with pytest.raises(AudioError):
            tdt.transcribe(recogniser, [item])


def test_what_a_transcript_does_not_show_is_said(recogniser, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    with pytest.warns(tdt.AudioWarning, match=r"no sound in .*a\.wav"):
        assert tdt.transcribe(recogniser, tmp_path / "a.wav").text == ""
    said = []
    heard = list(transcribe_each(recogniser, [tmp_path / "a.wav", noise(1.0)], warn=said.append))
    assert len(heard) == 2 and said == [f"no sound in {tmp_path / 'a.wav'}"]
    for wrong in (dict(track=0), dict(damaged="no")):
        with pytest.raises(ValueError, match=r"tracks are counted|damaged must be"):
            tdt.transcribe(recogniser, [], **wrong)


def test_words_after_damage_keep_their_places(listener, tmp_path):
    """What is lost is left out; everything else is as it is in the whole."""
    recogniser, _ = listener
    samples, words = bursts(60.0, 2)
    path = tmp_path / "a.flac"
    soundfile.write(path, samples, 16000)
    whole = tdt.transcribe(recogniser, path)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4] = b"\0\0\0\0"
    path.write_bytes(data)
    with pytest.raises(AudioError, match=r"a\.flac is truncated or damaged"):
        tdt.transcribe(recogniser, path)
    with pytest.warns(tdt.AudioWarning, match=r"0\.\d\d s of 60\.00 s could not be read"):
        found = tdt.transcribe(recogniser, path, damaged="skip")
    assert found.duration == 60.0
    times = {round(word.start, 2): word.text for word in whole.words}
    same = [word for word in found.words if times.get(round(word.start, 2)) == word.text]
    assert len(whole.words) == len(words) and len(same) >= len(words) - 3
    assert found.words[-1] == whole.words[-1]


def test_many_recordings_share_batches_and_stay_apart(listener):
    recogniser, batches = listener
    made = [bursts(seconds, i) for i, seconds in enumerate((70, 1, 4, 33, 2, 2, 100, 3, 1.5, 2))]
    done, order = [], []
    for position, heard in transcribe_each(
        recogniser, (samples for samples, _ in made), batch_seconds=11.0, progress=done.append
    ):
        order.append(position)
        assert heard.transcript.text.split() == made[position][1]
        assert heard.num_steps >= sum(len(word) for word in made[position][1])
    assert sorted(order) == list(range(len(made)))
    assert sum(done) == pytest.approx(sum(len(samples) for samples, _ in made) / 16000)
    assert set(batches) <= {
        (b.batch_size, round(b.seconds * 16000)) for b in shapes(recogniser.config, 11.0)
    }


def test_long_recordings_are_never_held_whole(listener, tmp_path, monkeypatch):
    """A quarter of an hour takes the memory of a few pieces, read and heard."""
    recogniser, _ = listener
    alive, most = weakref.WeakSet(), []

    def watched(*arguments, **options):
        for piece in cut(*arguments, **options):
            alive.add(piece)
            most.append(sum(len(each.samples) for each in alive))
            yield piece

    monkeypatch.setattr("tdt_jax.inference.long_form.cut", watched)
    path, words = tmp_path / "long.flac", []
    with soundfile.SoundFile(path, "w", 16000, 1) as file:
        for seed in range(30):
            samples, more = bursts(30.0, seed)
            file.write(samples)
            words += more
    (found,) = tdt.transcribe(recogniser, [path], batch_seconds=65.0)
    assert found.duration == 900.0 and found.text.split() == words
    assert len(most) > 30 and max(most) <= 12 * 30.72 * 16000


def test_a_recording_that_breaks_off_is_an_error_and_the_others_finish(listener, tmp_path):
    recogniser, _ = listener
    samples, words = bursts(80.0, 1)
    soundfile.write(tmp_path / "whole.wav", samples, 16000)
    data = (tmp_path / "whole.wav").read_bytes()
    (tmp_path / "broken.wav").write_bytes(data[: len(data) * 2 // 3])
    failed = {}
    found = tdt.transcribe(
        recogniser, [tmp_path / "broken.wav", tmp_path / "whole.wav"], failed=failed
    )
    assert found[0] is None and "truncated" in failed[0]
    assert found[1].text.split() == words
