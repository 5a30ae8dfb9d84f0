"""Transcription from audio to transcripts: batches, long audio, and what cannot be read."""

import dataclasses
import io
import time
import weakref

import bursts
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
import soxr
from bursts import LENGTH, WORDS, talk
from models import make_recogniser, noise, with_tags
from run_config import get_config

import tdt_jax as tdt
from tdt_jax import tokenizer as tokenizers
from tdt_jax.audio.errors import AudioError
from tdt_jax.inference import long_form, transcription
from tdt_jax.inference.long_form import PIECE_SECONDS
from tdt_jax.inference.transcription import shapes, transcribe_each, warm_up
from tdt_jax.runtime import process


def test_files_and_arrays_agree(recogniser, tmp_path):
    samples = noise(2.0)
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    stereo = np.stack([samples, samples], axis=1)
    a, b, c = tdt.transcribe(recogniser, [tmp_path / "a.wav", samples, stereo])
    assert a == b == c


def test_the_same_whatever_the_batch(recogniser):
    audio = [noise(s, i) for i, s in enumerate((0.5, 2.0, 3.1, 1.2, 4.9))]
    together = tdt.transcribe(recogniser, audio)
    alone = [tdt.transcribe(recogniser, [a], batch_seconds=0.1)[0] for a in audio]
    assert any(len(t.words) > 1 for t in alone)
    for a, b in zip(together, alone, strict=True):
        assert a.text == b.text and a.duration == b.duration
        assert [(t.text, t.start, t.end) for t in a.tokens] == [
            (t.text, t.start, t.end) for t in b.tokens
        ]


def test_tags_are_shown_on_demand():
    recogniser, samples = with_tags(), noise(5.0)
    (hidden,) = tdt.transcribe(recogniser, [samples])
    (shown,) = tdt.transcribe(recogniser, [samples], keep_tags=True)
    tags = [word for word in shown.words if word.text[0] == "<"]
    assert "<|ja|>" in {word.text for word in tags} and all(w.start == w.end for w in tags)
    assert {word.text for word in shown.words} - {"<|ja|>", "<unk>", "<|endoftext|>"} > {"it"}
    assert len(hidden.words) > 3 and "<" not in hidden.text
    assert hidden.language == shown.language == "ja"


def test_audio_without_a_frame(recogniser):
    """Shorter than a frame, and no audio at all."""
    with pytest.warns(tdt.AudioWarning, match="no sound in the array"):
        (found,) = tdt.transcribe(recogniser, [np.zeros(100, np.float32)])
    assert found.text == "" and found.words == [] and found.segments == []
    assert tdt.transcribe(recogniser, []) == []


def test_digital_silence_around_speech_changes_times_only(recogniser):
    """Though features are normalized over all of a window."""
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


def test_shapes_are_one_row_and_a_whole_batch_of_each_length(recogniser):
    table = shapes(recogniser.config, batch_seconds=11.0, piece_seconds=30.72)
    assert [(shape.seconds, shape.rows) for shape in table] == [
        (2.56, 1), (2.56, 4), (5.12, 1), (5.12, 2), (10.24, 1), (20.48, 1), (30.72, 1),
    ]  # fmt: skip
    table = shapes(recogniser.config, batch_seconds=0.1, piece_seconds=4.0)
    assert [(shape.seconds, shape.rows) for shape in table] == [(2.56, 1), (4.0, 1)]


@pytest.mark.parametrize("options", [{}, dict(batch_seconds=5.0, piece_seconds=5.12)])
def test_one_program_a_shape(recogniser, options):
    """For recordings of mixed lengths, and compiled by `warm_up`."""
    assert list(warm_up(recogniser, **options)) == shapes(recogniser.config, **options)
    before = process.compile_seconds()
    programs = tdt.encode._cache_size(), tdt.greedy_decode._cache_size()
    audio = [noise(s, i) for i, s in enumerate((0.5, 2.0, 4.0, 1.2, 4.9, 2.5, 0.1, 12.0))]
    assert all(tdt.transcribe(recogniser, audio, **options))
    assert (tdt.encode._cache_size(), tdt.greedy_decode._cache_size()) == programs
    assert process.compile_seconds() == before


def test_seconds_of_compilation_are_counted():
    before = process.compile_seconds()
    start = time.perf_counter()
    jax.jit(lambda x: jax.jit(jnp.sin)(x) + 1)(1.0)
    assert before < process.compile_seconds() < before + time.perf_counter() - start


def test_warm_up_leaves_long_shapes_to_when_they_are_needed(recogniser, monkeypatch):
    compiled = []

    def start_decoding(recogniser, decoder, samples, num_samples, guides):
        compiled.append(samples.shape)
        return lambda: None

    monkeypatch.setattr(transcription, "start_decoding", start_decoding)
    local = tdt.with_attention_context(recogniser, (128, 128))
    warm = list(warm_up(local, batch_seconds=11.0))
    assert [(shape.seconds, shape.rows) for shape in warm] == [
        (2.56, 1), (2.56, 4), (5.12, 1), (5.12, 2), (10.24, 1), (20.48, 1), (30.72, 1),
    ]  # fmt: skip
    assert compiled == [(shape.rows, round(shape.seconds * 16000)) for shape in warm]
    longest = [each.seconds for each in warm_up(local, batch_seconds=11.0, longest=100.0)][-3:]
    assert longest == [30.72, 61.44, 122.88]  # recordings of 100 seconds need the last


def test_an_rnnt_transcribes_too():
    rnnt = make_recogniser(durations=None, blank_bias=5.0, piece_seconds=2.56)
    transcript = tdt.transcribe(rnnt, noise(2.0))
    assert transcript.tokens and all(t.start <= t.end <= 2.0 for t in transcript.tokens)
    assert np.all(np.diff([t.start for t in transcript.tokens]) >= 0)


def test_with_local_attention_long_audio_is_not_cut(recogniser):
    """The transcript is what the encoder and the decoder make of the whole."""
    local = tdt.with_attention_context(recogniser, (16, 8))
    samples = noise(5.0)
    whole = tdt.transcribe(local, samples, batch_seconds=0.1)
    padded = np.zeros((1, round(5.12 * 16000)), np.float32)
    padded[0, : len(samples)] = samples
    features = tdt.log_mel(padded, np.array([len(samples)], np.int32))
    frames = tdt.encode(local.model, *features)
    decoded = jax.device_get(tdt.greedy_decode(local.model, *frames))
    assert whole.text == local.tokenizer.decode(decoded.labels[0, : decoded.num_labels[0]])
    cut = tdt.transcribe(recogniser, samples)
    assert cut.text != whole.text and cut.duration == whole.duration == 5.0


def test_shapes_hold_two_hours_with_local_attention_only(recogniser):
    config = dataclasses.replace(recogniser.config, piece_seconds=None)
    assert shapes(config)[-1].seconds == PIECE_SECONDS
    local = dataclasses.replace(
        config, encoder=dataclasses.replace(config.encoder, attention_context=(128, 128))
    )
    assert shapes(local)[-1].seconds >= 7200
    assert shapes(local, piece_seconds=100.0)[-1].seconds == 100.0
    for sizes in ((0, None), (None, 0.5), (np.nan, None), (np.inf, None), (None, 1e309)):
        with pytest.raises(ValueError, match="batch_seconds must be above 0 and piece_seconds"):
            shapes(config, *sizes)


def test_windows_are_as_long_as_the_model_was_trained_on(tmp_path):
    """A run's longest bucket, kept when it is saved again; half a minute for others."""
    recogniser = make_recogniser()
    config = dataclasses.replace(get_config(), model=recogniser.config)
    tdt.save(recogniser, tmp_path / "run", config=config)
    run = tdt.load(tmp_path / "run")
    assert shapes(run.config)[-1].seconds == run.config.piece_seconds == 8.96
    tdt.save(run, tmp_path / "again")
    assert tdt.load(tmp_path / "again").config.piece_seconds == 8.96
    tdt.save(recogniser, tmp_path / "other")
    other = tdt.load(tmp_path / "other").config
    assert other.piece_seconds is None and shapes(other)[-1].seconds == PIECE_SECONDS
    with pytest.raises(ValueError, match="piece_seconds must be >= 1, got 0"):
        dataclasses.replace(recogniser.config, piece_seconds=0.0)


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


def test_what_a_transcript_does_not_show_is_reported(recogniser, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    with pytest.warns(tdt.AudioWarning, match=r"no sound in .*a\.wav"):
        assert tdt.transcribe(recogniser, tmp_path / "a.wav").text == ""
    warnings = []
    audio = [tmp_path / "a.wav", noise(1.0)]
    results = list(transcribe_each(recogniser, audio, warn=warnings.append))
    assert len(results) == 2 and warnings == [f"no sound in {tmp_path / 'a.wav'}"]
    for wrong in (dict(track=0), dict(damaged="no")):
        with pytest.raises(ValueError, match=r"tracks are counted|damaged must be"):
            tdt.transcribe(recogniser, [], **wrong)


# Long audio, by a recogniser without errors


@pytest.fixture
def listener(monkeypatch):
    """A recogniser of bursts, which notes the shapes of its batches."""
    recogniser = make_recogniser(tokenizer=tokenizers.train_characters([" ".join(WORDS)]))
    batches = []

    def decode(model, samples, num_samples, *, decoder, advice):
        batches.append(samples.shape)
        return bursts.decode(samples, num_samples, recogniser.tokenizer)

    monkeypatch.setattr(transcription, "decode_samples_on_mesh", decode)
    return recogniser, batches


@pytest.mark.parametrize("seed", range(6))
def test_no_word_is_lost_or_doubled_in_long_audio(listener, seed):
    recogniser, batches = listener
    samples, words = talk(150.0 + 7 * seed, seed)
    (transcript,) = tdt.transcribe(recogniser, [samples], batch_seconds=40.0)
    assert transcript.text.split() == words
    starts = [word.start for word in transcript.words]
    assert starts == sorted(starts) and transcript.duration == len(samples) / 16000
    assert all(word.start <= word.end <= transcript.duration for word in transcript.words)
    assert max(seconds for _, seconds in batches) == 30.72 * 16000


def test_a_word_at_every_cut_is_emitted_once(listener):
    """Speech without a pause: every cut is inside a word, which only the overlap holds whole."""
    recogniser, _ = listener
    numbers = np.random.default_rng(0).integers(len(WORDS), size=150)
    samples = np.concatenate([np.full(LENGTH + 64, (n + 2) / 20, np.float32) for n in numbers])
    samples += 0.001 * (-1) ** np.arange(len(samples), dtype=np.float32)  # a constant is silence
    samples[:: LENGTH + 64] = samples[1 :: LENGTH + 64] = 0  # a gap too short to cut in
    (transcript,) = tdt.transcribe(recogniser, [samples], piece_seconds=10.0)
    assert transcript.text.split() == [WORDS[n] for n in numbers]


def test_brief_words_between_long_silences_keep_their_times(listener):
    """In one window, with half a second of zeros for the silence that is in the recording."""
    recogniser, batches = listener
    samples = np.zeros(60 * 16000, np.float32)
    starts = [3.0, 9.5, 10.2, 31.0, 58.0]
    for number, start in enumerate(starts):
        first = round(start * 16000)
        samples[first : first + LENGTH] = bursts.burst(number)
    (transcript,) = tdt.transcribe(recogniser, [samples])
    assert [word.text for word in transcript.words] == WORDS[:5]
    np.testing.assert_allclose([word.start for word in transcript.words], starts, atol=0.09)
    lengths = [word.end - word.start for word in transcript.words]
    assert min(lengths) > 0.2 and max(lengths) < 0.4  # as long as they are
    assert transcript.duration == 60.0 and len(batches) == 1


def test_words_after_damage_keep_their_places(listener, tmp_path):
    """What is lost is left out; everything else is as it is in the whole."""
    recogniser, _ = listener
    samples, words = talk(60.0, 2)
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
        transcript = tdt.transcribe(recogniser, path, damaged="skip")
    assert transcript.duration == 60.0
    times = {round(word.start, 2): word.text for word in whole.words}
    same = [word for word in transcript.words if times.get(round(word.start, 2)) == word.text]
    assert len(whole.words) == len(words) and len(same) >= len(words) - 3
    assert transcript.words[-1] == whole.words[-1]


def test_many_recordings_share_batches_and_stay_apart(listener):
    recogniser, batches = listener
    made = [talk(seconds, i) for i, seconds in enumerate((70, 1, 4, 33, 2, 2, 100, 3, 1.5, 2))]
    done, order = [], []
    for position, result in transcribe_each(
        recogniser, (samples for samples, _ in made), batch_seconds=11.0, progress=done.append
    ):
        order.append(position)
        assert result.transcript.text.split() == made[position][1]
        assert result.num_steps >= sum(len(word) for word in made[position][1])
    assert sorted(order) == list(range(len(made)))
    assert sum(done) == pytest.approx(sum(len(samples) for samples, _ in made) / 16000)
    assert set(batches) <= {
        (shape.rows, round(shape.seconds * 16000)) for shape in shapes(recogniser.config, 11.0)
    }


def test_long_recordings_are_never_held_whole(listener, tmp_path, monkeypatch):
    """Four minutes take the memory of a few windows, read and decoded."""
    recogniser, _ = listener
    alive, most = weakref.WeakSet(), []
    cut = long_form.cut

    def watched(*arguments, **options):
        for window in cut(*arguments, **options):
            alive.add(window)
            most.append(sum(len(each.samples) for each in alive))
            yield window

    monkeypatch.setattr(long_form, "cut", watched)
    path, words = tmp_path / "long.flac", []
    with soundfile.SoundFile(path, "w", 16000, 1) as file:
        for seed in range(8):
            samples, more = talk(30.0, seed)
            file.write(samples)
            words += more
    options = dict(batch_seconds=22.0, piece_seconds=10.24)  # two windows in a batch
    (transcript,) = tdt.transcribe(recogniser, [path], **options)
    assert transcript.duration == 240.0 and transcript.text.split() == words
    assert len(most) > 24 and max(most) <= 12 * 10.24 * 16000


def test_a_recording_that_breaks_off_is_an_error_and_the_others_finish(listener, tmp_path):
    recogniser, _ = listener
    samples, words = talk(80.0, 1)
    soundfile.write(tmp_path / "whole.wav", samples, 16000)
    data = (tmp_path / "whole.wav").read_bytes()
    (tmp_path / "broken.wav").write_bytes(data[: len(data) * 2 // 3])
    failed = {}
    audio = [tmp_path / "broken.wav", tmp_path / "whole.wav"]
    broken, whole = tdt.transcribe(recogniser, audio, failed=failed)
    assert broken is None and "truncated" in failed[0]
    assert whole.text.split() == words
