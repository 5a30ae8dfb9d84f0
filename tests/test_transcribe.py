"""Transcripts: times, words, pieces of long audio, and one answer whatever the batch."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from flax import nnx
from tiny_run import get_config

import tdt_jax as tdt
from tdt_jax import tokenizer as tokenizers
from tdt_jax.audio import AudioError
from tdt_jax.decode import Hypothesis
from tdt_jax.transcribe import LENGTHS, cut_points, shape_lengths, to_transcript

TEXTS = ["one two three, four five six.", "it's seven eight nine ten"] * 5


def make_recogniser(durations=(0, 1, 2), tokenizer=None, blank_bias=2.0):
    """Random, with heads large enough to say many things."""
    tokenizer = tokenizer or tokenizers.train_sentencepiece(TEXTS, 40)
    config = dataclasses.replace(
        get_config().model, vocab_size=tokenizer.vocab_size, durations=durations
    )
    model = tdt.Transducer(config, rngs=nnx.Rngs(3))
    head = model.joint.token_head
    head.kernel = nnx.Param(head.kernel[...] * 4)
    head.bias = nnx.Param(head.bias[...].at[-1].set(blank_bias))
    return tdt.Recogniser(model, tokenizer)


@pytest.fixture(scope="module")
def recogniser():
    return make_recogniser()


def noise(seconds, seed=0):
    rng = np.random.default_rng(seed)
    return (0.1 * rng.normal(size=round(seconds * 16000))).astype(np.float32)


def hypothesis(labels, times, durations):
    scores = np.log(np.linspace(0.5, 1, len(labels))).astype(np.float32)
    return Hypothesis(
        np.array(labels), np.int32(len(labels)), np.array(times), np.array(durations), scores,
        np.int32(0),
    )  # fmt: skip


def spell(recogniser, *pieces):
    return [recogniser.tokenizer.pieces.index(piece) for piece in pieces]


def test_words_carry_times_and_their_least_confidence():
    characters = make_recogniser(tokenizer=tokenizers.train_characters(["ab c."]))
    labels = spell(characters, "a", "b", ".", " ", "c")
    found = to_transcript(hypothesis(labels, [2, 2, 5, 20, 21], [0, 3, 2, 1, 4]), characters, 2.0)
    assert found.text == "ab. c" and found.duration == 2.0
    assert [(t.text, round(t.start, 3), round(t.end, 3)) for t in found.tokens] == [
        ("a", 0.16, 0.16),  # duration 0, and "b" starts at the same frame
        ("b", 0.16, 0.4),
        (".", 0.4, 0.4),  # punctuation has no length
        (" ", 1.6, 1.68),
        ("c", 1.68, 2.0),
    ]
    words = [(w.text, round(w.start, 3), round(w.end, 3)) for w in found.words]
    assert words == [("ab.", 0.16, 0.4), ("c", 1.68, 2.0)]
    np.testing.assert_allclose([w.confidence for w in found.words], [0.5, 1.0], rtol=1e-6)
    assert [(s.text, round(s.start, 3)) for s in found.segments] == [("ab.", 0.16), ("c", 1.68)]


def test_times_do_not_leave_the_audio():
    characters = make_recogniser(tokenizer=tokenizers.train_characters(["ab"]))
    found = to_transcript(hypothesis(spell(characters, "a", "b"), [0, 6], [1, 4]), characters, 0.5)
    assert found.tokens[1].end == 0.5 and found.words[-1].end == 0.5


def test_the_same_whatever_the_batch(recogniser):
    audio = [noise(s, i) for i, s in enumerate((0.5, 2.0, 3.1, 1.2, 4.9))]
    together = tdt.transcribe(recogniser, audio, batch_size=4)
    alone = [tdt.transcribe(recogniser, [a], batch_size=1)[0] for a in audio]
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


def test_nothing_to_hear(recogniser):
    """Shorter than a frame, and nothing at all."""
    (found,) = tdt.transcribe(recogniser, [np.zeros(100, np.float32)])
    assert found.text == "" and found.words == [] and found.segments == []
    assert tdt.transcribe(recogniser, []) == []


def test_bad_audio_is_an_error_or_reported(recogniser, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    audio = [noise(1.0), tmp_path / "bad.wav", tmp_path / "none.wav", np.full(900, np.nan)]
    with pytest.raises(AudioError, match=r"bad\.wav"):
        tdt.transcribe(recogniser, audio)
    failed = {}
    found = tdt.transcribe(recogniser, audio, failed=failed)
    assert [t is None for t in found] == [False, True, True, True]
    assert sorted(failed) == [1, 2, 3] and "none.wav" in failed[2]


def test_long_audio_is_cut_where_it_is_quiet(recogniser):
    """Pieces fit the largest shape, cover everything, and their times go on."""
    rate, longest = 16000, round(LENGTHS[-1] * 16000)
    samples = noise(80)
    quiet = [25.0, 51.0]
    for second in quiet:
        samples[round(second * rate) : round((second + 0.5) * rate)] *= 1e-3
    cuts = cut_points(samples, longest, rate)
    assert [any(q <= c / rate <= q + 0.5 for q in quiet) for c in cuts] == [True, True]
    assert np.diff([0, *cuts, len(samples)]).max() <= longest
    (found,) = tdt.transcribe(recogniser, [samples])
    pieces = np.split(samples, cuts)
    alone = tdt.transcribe(recogniser, pieces)
    assert found.text.split() and found.duration == 80.0
    assert [t.text for t in found.tokens] == [t.text for a in alone for t in a.tokens]
    offsets = np.array([0, *cuts]) / rate
    starts = [t.start + o for a, o in zip(alone, offsets, strict=True) for t in a.tokens]
    np.testing.assert_allclose([t.start for t in found.tokens], starts)
    assert np.all(np.diff(starts) >= 0)


def test_few_shapes_are_compiled(recogniser):
    tdt.transcribe(recogniser, [noise(1.0), noise(2.0)])
    before = tdt.encode._cache_size(), tdt.greedy_decode._cache_size()
    tdt.transcribe(recogniser, [noise(1.5, 1), noise(0.3, 2)])
    assert (tdt.encode._cache_size(), tdt.greedy_decode._cache_size()) == before


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
    assert shape_lengths(recogniser.config) == LENGTHS
    lengths = shape_lengths(tdt.with_attention_context(recogniser, (128, 128)).config)
    assert lengths[: len(LENGTHS)] == LENGTHS and lengths[-1] >= 7200
