"""Features, frames and labels piece by piece against those of the whole."""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import models
import numpy as np
import pieces
import pytest
from compilations import num_compilations
from flax import nnx
from numpy.testing import assert_allclose, assert_array_equal

import tdt_jax as tdt

slow = pytest.mark.slow

FEATURES = tdt.FeatureConfig(num_mels=16, normalize=(-12.0, 5.0))
CONTEXTS = (6, 2), (8, 1), (3, 0), (0, 3), (0, 0)
EXTRAS = dict(scale_input=True, use_bias=False, convolution_norm="affine")
# Lengths in samples and in features of the utterances of four rows, short ones first and last.
SAMPLES = [3000, 0, 361, 2400], [160, 8000, 1], [159, 1600, 4321, 200], [0, 360, 5000]
NUM_FEATURES = [49, 0, 9, 20], [1, 77, 8], [16, 90, 17], [0, 7, 33, 10]
ABANDONED = (2,), (1,), (), (2,)  # utterances that are given up somewhere


def causal(durations=(0, 1, 2), dtype="float32", **changes):
    options = dict(chunked_contexts=CONTEXTS, convolution_context=(4, 0), causal_subsampling=True)
    encoder = models.encoder_config(**{**options, **changes})
    return models.emitting(
        models.config(durations, encoder=encoder, features=FEATURES, dtype=dtype)
    )


def noise(length, seed):
    """Random features."""
    return np.random.default_rng(seed).normal(size=(length, 16))


def tones(length, seed):
    """Samples of two tones, others every 50 ms."""
    rng, num_tones = np.random.default_rng(seed), -(-length // 800)
    pitch, loudness = rng.uniform(100, 7000, (num_tones, 2)), rng.uniform(-4, 0, (num_tones, 2))
    phase = np.cumsum(np.repeat(pitch, 800, axis=0)[:length], axis=0) / 16000
    return np.sum(10 ** np.repeat(loudness, 800, axis=0)[:length] * np.sin(2 * np.pi * phase), 1)


def utterances(make, lengths):
    """Utterances of the given lengths, [row][utterance]."""
    return [[make(length, (b, i)) for i, length in enumerate(row)] for b, row in enumerate(lengths)]


def batch(rows):
    """All utterances of all rows as one batch, and their lengths."""
    rows = [each for row in rows for each in row]
    lengths = np.array([len(each) for each in rows], np.int32)
    values = np.zeros((len(lengths), lengths.max(), *rows[0].shape[1:]), np.float32)
    for row, each in zip(values, rows, strict=True):
        row[: len(each)] = each
    return values, lengths


def cut(rows, size, seed):
    return [
        pieces.cut(row, size, (seed, b), given_up)
        for b, (row, given_up) in enumerate(zip(rows, ABANDONED, strict=True))
    ]


def assert_equal(found, whole, num_whole, atol=0.0):
    """Utterances [row][utterance] against rows of one batch; of abandoned ones, what there is."""
    expected = iter(zip(whole, num_whole, strict=True))
    for b, row in enumerate(found):
        for i, values in enumerate(row):
            each, length = next(expected)
            if i in ABANDONED[b]:
                assert len(values) <= length
                length = len(values)
            assert values.shape == (length, *each.shape[1:]), (b, i)
            assert_allclose(values, each[:length], rtol=0, atol=atol, err_msg=f"{b}, {i}")
    assert next(expected, None) is None


def first(results):
    """The only array of each utterance."""
    return [[arrays[0] for arrays in row] for row in results]


def feature_step(values, counts, state, last):
    found, count, state = jax.device_get(tdt.log_mel_chunk(values, counts, state, FEATURES, last))
    return [(found, count)], state


def frame_step(model):
    def step(values, counts, state, last):
        found, count, state = tdt.encode_chunk(model, values, counts, state, last)
        return [jax.device_get((found, count))], state

    return step


@pytest.mark.parametrize(
    ("size", "seed"),
    [(1280, 0), (161, 1), pytest.param(1, 2, marks=slow), pytest.param(4000, 3, marks=slow)],
)
def test_features_of_any_pieces_are_those_of_the_whole(size, seed):
    """To rounding: a feature's transform takes the same samples, perhaps in other vectors."""
    samples = utterances(tones, SAMPLES)
    whole, num_whole = jax.device_get(tdt.log_mel(*batch(samples), FEATURES))
    assert {0, 1, 2, 50} <= {*num_whole}
    state = tdt.start_log_mel(4, FEATURES)
    found = pieces.run(feature_step, state, cut(samples, size, seed), size)
    assert_equal(first(found), whole, num_whole, atol=1e-5)


def test_a_feature_comes_when_a_hop_has_come_after_its_center():
    """Also if its window ends before: the whole has no such feature either."""
    config = tdt.FeatureConfig(num_mels=16, normalize=(-12.0, 5.0), window_length=160)
    samples, state = tones(399, 0)[None], tdt.start_log_mel(1, config)
    whole, num_whole = tdt.log_mel(samples, np.array([399]), config)
    found = []
    for size in (100, 140, 159):
        part, samples = np.split(samples, [size], axis=1)
        part = np.pad(part, ((0, 0), (0, 160 - size)))
        features, count, state = tdt.log_mel_chunk(part, np.array([size]), state, config)
        found.append(features[0, : count[0]])
    assert [len(each) for each in found] == [0, 1, 1] and num_whole[0] == 2
    assert_allclose(np.concatenate(found), whole[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("context", "size", "seed", "changes"),
    [
        ((8, 1), 5, 0, EXTRAS),
        pytest.param((3, 0), 8, 1, {}, marks=slow),
        pytest.param((0, 3), 33, 2, {}, marks=slow),
        *(
            pytest.param(context, size, 3, changes, marks=slow)
            for context in CONTEXTS
            for size, changes in ((1, {}), (64, EXTRAS))
        ),
    ],
)
def test_frames_of_any_pieces_are_those_of_the_whole(context, size, seed, changes):
    model, features = causal(**changes), utterances(noise, NUM_FEATURES)
    whole, num_whole = jax.device_get(tdt.encode(model, *batch(features), context=context))
    state = tdt.start_encoding(model, 4, context)
    found = pieces.run(frame_step(model), state, cut(features, size, seed), size)
    assert_equal(first(found), whole, num_whole, atol=2e-5)


def test_features_come_with_sample_160_m_plus_200():
    state, step = tdt.start_log_mel(1, FEATURES), np.full(1, 40, np.int32)
    samples = np.full((1, 40), 0.1, np.float32)
    for received in range(40, 1001, 40):
        _, _, state = tdt.log_mel_chunk(samples, step, state, FEATURES)
        assert state.num_features[0] == len(range(200, received + 1, 160))


@pytest.mark.parametrize(
    "context", [(6, 2), (0, 0), *(pytest.param(each, marks=slow) for each in CONTEXTS[1:4])]
)
def test_chunks_of_c_frames_come_with_their_last_feature(context):
    """With feature 8 n, n being the last frame of the chunk."""
    model, chunk = causal(), context[1] + 1
    state, one = tdt.start_encoding(model, 1, context), np.ones(1, np.int32)
    features = np.zeros((1, 1, 16), np.float32)
    before = 0
    for m in range(8 * 2 * chunk):
        _, count, state = tdt.encode_chunk(model, features, one, state)
        is_last = m % (8 * chunk) == 8 * (chunk - 1)
        assert int(count[0]) == (chunk if is_last else 0) == int(state.num_frames[0]) - before
        before = int(state.num_frames[0])
    assert state.chunk == chunk and before == 2 * chunk


class Live(NamedTuple):
    """Features, encoder and decoder of a batch of streams."""

    features: tdt.FeatureState
    encoder: tdt.EncoderState
    decoder: tdt.DecoderState
    start: tdt.DecoderState  # before any frame

    def restart(self, rows):
        return self._replace(
            features=self.features.restart(rows),
            encoder=self.encoder.restart(rows),
            decoder=restarted(self.decoder, self.start, rows),
        )


def restarted(state, start, rows):
    """The decoder's state, as it is at the start in some rows; in numpy."""

    def choose(one, other, axis=0):
        shape = [1] * one.ndim
        shape[axis] = len(rows)
        return np.where(np.reshape(rows, shape), one, other)

    state, start = jax.device_get((state, start))
    return tdt.DecoderState(
        choose(start.skip, state.skip),
        jax.tree.map(lambda *x: choose(*x, axis=1), start.predictor, state.predictor),
        choose(start.projected, state.projected),
    )


def start_live(model, num_rows, context):
    start = jax.jit(tdt.start_decoding, static_argnums=1)(model, num_rows)
    return Live(
        tdt.start_log_mel(num_rows, FEATURES),
        tdt.start_encoding(model, num_rows, context),
        start,
        start,
    )


def live_step(model):
    """Samples to features, frames and labels with their times in the utterance and durations."""

    def step(values, counts, state, last):
        features, num_features, after = tdt.log_mel_chunk(
            values, counts, state.features, FEATURES, last
        )
        frames, num_frames, encoder = tdt.encode_chunk(
            model, features, num_features, state.encoder, last
        )
        hypothesis, decoder = tdt.decode_chunk(model, frames, num_frames, state.decoder)
        hypothesis, frames_before = jax.device_get((hypothesis, state.encoder.num_frames))
        outputs = [
            (features, num_features),
            (frames, num_frames),
            (emissions(hypothesis, frames_before), hypothesis.num_labels),
        ]
        state = state._replace(
            features=after, encoder=encoder, decoder=restarted(decoder, state.start, last)
        )
        return jax.device_get(outputs), state

    return step


def attune(model, frames, num_frames):
    """Makes the joint see frames of mean 0 and deviation 2, and blanks rarer than they were."""
    values = np.concatenate([row[:n] for row, n in zip(frames, num_frames, strict=True)])
    projection = model.joint.frame_projection
    kernel = np.asarray(projection.kernel[...]) * 2 / values.std(axis=0)[:, None]
    projection.kernel[...] = kernel
    projection.bias[...] = -values.mean(axis=0) @ kernel
    bias = np.array(model.joint.token_head.bias[...])
    bias[-1] -= 4
    model.joint.token_head.bias[...] = bias


def emissions(hypothesis, frames_before=0):
    """Labels, times and durations [B, L, 3]; times count from the start of the utterance."""
    times = hypothesis.times + np.reshape(frames_before, (-1, 1))
    return np.stack([hypothesis.labels, times, hypothesis.durations], axis=-1)


@pytest.mark.parametrize(
    ("durations", "context", "size", "seed"),
    [
        ((0, 1, 2), (6, 2), 1280, 0),
        (None, (0, 0), 700, 1),
        *(
            pytest.param(durations, context, size, 7, marks=slow)
            for durations in ((0, 1, 2), (1, 2, 4), None)
            for context, size in zip(CONTEXTS, (100, 3000, 300, 1280, 900), strict=True)
        ),
    ],
)
def test_labels_of_any_pieces_of_samples_are_those_of_the_whole(durations, context, size, seed):
    """Bit for bit with their times and durations; durations reach over the ends of chunks."""
    model, samples = causal(durations), utterances(tones, SAMPLES)
    whole_features = tdt.log_mel(*batch(samples), FEATURES)
    whole_frames = tdt.encode(model, *whole_features, context=context)
    attune(model, *jax.device_get(whole_frames))
    whole = jax.device_get(tdt.greedy_decode(model, *whole_frames))
    expected = emissions(whole)
    emitted = np.concatenate([row[:n] for row, n in zip(expected, whole.num_labels, strict=True)])
    assert len(emitted) > 10 and len(np.unique(emitted[:, 0])) >= 3
    chunk = context[1] + 1
    assert durations is None or np.any(emitted[:, 1] % chunk + emitted[:, 2] > chunk)
    state = start_live(model, 4, context)
    found = pieces.run(live_step(model), state, cut(samples, size, seed), size)
    parts = [[[arrays[k] for arrays in row] for row in found] for k in range(3)]
    assert_equal(parts[0], *jax.device_get(whole_features), atol=1e-5)
    assert_equal(parts[1], *jax.device_get(whole_frames), atol=5e-5)
    assert_equal(parts[2], expected, whole.num_labels)


# Each row for itself, for hours


def feature_case():
    return feature_step, tdt.start_log_mel(4, FEATURES), utterances(tones, SAMPLES), 400


def frame_case():
    model = causal()
    start = tdt.start_encoding(model, 4, (8, 1))
    return frame_step(model), start, utterances(noise, NUM_FEATURES), 20


@pytest.mark.parametrize("case", [feature_case, frame_case])
def test_utterances_do_not_influence_others(case):
    """Bit for bit: nor those before in the row, ended or given up in the middle of NaN."""
    step, start, values, size = case()
    clean = first(pieces.run(step, start, cut(values, size, 0), size))
    bad = {(0, 0): np.nan, (1, 1): np.nan, (2, 1): np.inf, (3, 2): -1e30}
    for (b, i), value in bad.items():
        values[b][i] = np.full_like(values[b][i], value)
    found = first(pieces.run(step, start, cut(values, size, 0), size))
    for b, row in enumerate(clean):
        for i, expected in enumerate(row):
            if (b, i) not in bad:
                assert_array_equal(found[b][i], expected)
            elif len(expected):
                assert np.any(found[b][i] != expected)


@pytest.mark.parametrize("case", [feature_case, frame_case])
def test_rows_do_not_depend_on_where_others_are(case):
    step, start, values, size = case()
    found, again = (
        first(
            pieces.run(step, start, [*cut(values, size, 0)[:2], *cut(values, size, seed)[2:]], size)
        )
        for seed in (0, 1)
    )
    for one, other in zip(found[0] + found[1], again[0] + again[1], strict=True):
        assert_array_equal(one, other)


def shapes(state):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state)


def in_ten_hours(state, **counts):
    """The state as it is when as many samples, features or frames more have come."""
    return state._replace(
        **{name: getattr(state, name) + np.int32(count) for name, count in counts.items()}
    )


def test_frames_after_ten_hours_are_those_of_the_start():
    """Bit for bit, by the same program and with a state of the same size."""
    model, rng = causal(), np.random.default_rng(0)
    early, counts = tdt.start_encoding(model, 3, (6, 2)), np.full(3, 17, np.int32)
    values = rng.normal(size=(9, 3, 17, 16)).astype(np.float32)
    going, ends = np.zeros(3, bool), np.array([True, False, False])
    assert num_compilations(tdt.encode_chunk, model, values[0], counts, early, going) == 1
    sizes = shapes(early)
    for piece in values[:5]:
        _, _, early = tdt.encode_chunk(model, piece, counts, early, going)
    assert np.min(early.num_frames) > 6  # all that a frame attends to is there
    late = in_ten_hours(early, num_features=3_600_000, num_frames=450_000)
    assert num_compilations(tdt.encode_chunk, model, values[5], counts, late, going) == 0
    for piece in values[5:]:
        found = []
        for state in (early, late):
            frames, num_frames, state = tdt.encode_chunk(model, piece, counts, state, ends)
            found.append((jax.device_get((frames, num_frames)), state))
        (expected, early), (actual, late) = found
        assert_array_equal(actual[1], expected[1])
        assert_array_equal(actual[0], expected[0])
        assert_array_equal(late.num_frames - early.num_frames, [0, 450_000, 450_000])
        assert shapes(early) == shapes(late) == sizes


def test_features_after_ten_hours_are_those_of_the_start():
    rng, counts = np.random.default_rng(0), np.full(2, 333, np.int32)
    values = rng.normal(size=(8, 2, 333)).astype(np.float32)
    early, last = tdt.start_log_mel(2, FEATURES), np.zeros(2, bool)
    sizes = shapes(early)
    options = dict(config=FEATURES, last=last)
    assert num_compilations(tdt.log_mel_chunk, values[0], counts, early, **options) == 1
    for piece in values[:4]:
        _, _, early = tdt.log_mel_chunk(piece, counts, early, **options)
    late = in_ten_hours(early, num_samples=576_000_000, num_features=3_600_000)
    assert num_compilations(tdt.log_mel_chunk, values[0], counts, late, **options) == 0
    for piece in values[4:]:
        *expected, early = tdt.log_mel_chunk(piece, counts, early, **options)
        *actual, late = tdt.log_mel_chunk(piece, counts, late, **options)
        for one, other in zip(actual, expected, strict=True):
            assert_array_equal(one, other)
        assert shapes(early) == shapes(late) == sizes


def test_the_end_may_come_without_samples():
    state, size = tdt.start_log_mel(1, FEATURES), np.array([160])
    samples = utterances(tones, [[160]])[0][0][None].astype(np.float32)
    _, count, state = tdt.log_mel_chunk(samples, size, state, FEATURES)
    assert count[0] == 0
    features, count, state = tdt.log_mel_chunk(
        samples[:, :0], size * 0, state, FEATURES, np.array([True])
    )
    expected, _ = tdt.log_mel(samples, size, FEATURES)
    assert count[0] == 1 and not np.any(state.num_samples)
    assert_allclose(features[0, 0], expected[0, 0], atol=1e-5)


@slow
def test_bfloat16_in_chunks():
    """Frames of deviation one differ by bfloat16's rounding, in chunks as in the whole."""
    model, features = causal(dtype="bfloat16"), utterances(noise, NUM_FEATURES)
    with jax.numpy_dtype_promotion("standard"):  # flax's norms promote to float32 implicitly
        whole, num_whole = jax.device_get(tdt.encode(model, *batch(features)))
        state = tdt.start_encoding(model, 4)
        assert state.layers.attention.keys.dtype == state.layers.convolution.dtype == jnp.bfloat16
        found = first(pieces.run(frame_step(model), state, cut(features, 40, 0), 40))
    assert found[0][0].dtype == jnp.bfloat16
    found = [[each.astype(np.float32) for each in row] for row in found]
    assert_equal(found, whole.astype(np.float32), num_whole, atol=0.1)


# Bad input


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (dict(chunked_contexts=()), r"\(\), \(4, 0\) and True"),
        (dict(convolution_context=None), r"None and True"),
        (dict(convolution_context=(3, 1)), r"\(3, 1\) and True"),
        (dict(causal_subsampling=False), r"\(4, 0\) and False"),
        (dict(chunked_contexts=(), unified_contexts=((4,), (2,), (1,))), r"\(\), \(4, 0\) and"),
    ],
)
def test_models_that_are_not_causal_are_refused(changes, named):
    with pytest.raises(ValueError, match=r"needs a causal model: .*\(4, 0\) and .*" + named):
        tdt.start_encoding(causal(**changes), 2)


def test_contexts_that_the_model_has_not_are_refused():
    for context in ((6, 1), (70, 13), (6, 3, 0)):
        known = r"it has \(6, 2\) and \(8, 1\) and \(3, 0\) and \(0, 3\) and \(0, 0\)"
        with pytest.raises(
            ValueError, match=rf"no attention context {re.escape(str(context))}; {known}"
        ):
            tdt.start_encoding(causal(), 2, context)


def test_features_normalized_by_utterance_are_refused():
    for config in (tdt.FeatureConfig(), tdt.FeatureConfig(silence=22.0)):
        with pytest.raises(ValueError, match=r"need features\.normalize = \(mean, deviation\)"):
            tdt.start_log_mel(2, config)


@pytest.mark.parametrize(
    ("shape", "counts", "rows", "last", "message"),
    [
        ((2, 9, 17), 2, 2, 2, r"\[B, M > 0, 16\], got \(2, 9, 17\)"),
        ((9, 16), 9, 9, 9, r"\[B, M > 0, 16\], got \(9, 16\)"),
        ((2, 0, 16), 2, 2, 2, r"\[B, M > 0, 16\], got \(2, 0, 16\)"),
        ((2, 9, 16), 3, 2, 2, r"num_features \[B\] .* got \(3,\) and \(2, 9, 16\)"),
        ((2, 9, 16), 2, 3, 2, r"a state of 2 rows, got 3"),
        ((2, 9, 16), 2, 2, 3, r"last \[B\] .* got \(3,\) and 2 rows"),
        ((2, 9, 16), 2, 2, 1, r"last \[B\] .* got \(1,\) and 2 rows"),
    ],
)
def test_bad_shapes_of_features_are_named(shape, counts, rows, last, message):
    state = tdt.start_encoding(causal(), rows)
    counts, last = np.zeros(counts, np.int32), np.zeros(last, bool)
    with pytest.raises(ValueError, match="encode_chunk needs .*" + message):
        tdt.encode_chunk(causal(), np.zeros(shape, np.float32), counts, state, last)


@pytest.mark.parametrize(
    ("shape", "counts", "rows", "last", "message"),
    [
        ((320,), 1, 1, 1, r"samples \[B, S\] and num_samples \[B\], got \(320,\) and \(1,\)"),
        ((2, 320), 3, 2, 2, r"got \(2, 320\) and \(3,\)"),
        ((2, 320), 2, 3, 2, r"a state of 2 rows, got 3"),
        ((2, 320), 2, 2, 3, r"last \[B\] .* got \(3,\) and 2 rows"),
    ],
)
def test_bad_shapes_of_samples_are_named(shape, counts, rows, last, message):
    state = tdt.start_log_mel(rows, FEATURES)
    counts, last = np.zeros(counts, np.int32), np.zeros(last, bool)
    with pytest.raises(ValueError, match="log_mel_chunk needs .*" + message):
        tdt.log_mel_chunk(np.zeros(shape, np.float32), counts, state, FEATURES, last)


def test_new_states_can_be_donated():
    """No array is in a state twice."""
    model = causal()
    states = (
        tdt.start_log_mel(2, FEATURES),
        tdt.start_encoding(model, 2),
        tdt.start_decoding(model, 2),
    )
    addresses = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(states)]
    assert len(set(addresses)) == len(addresses)


@slow
def test_a_first_frame_without_features_has_a_gradient():
    """A new model's frame that sees zeros and itself alone does not stay zero in all blocks."""
    encoder = models.encoder_config(
        num_layers=4,
        chunked_contexts=((4, 0),),
        convolution_context=(4, 0),
        causal_subsampling=True,
    )
    config = models.config(encoder=encoder, features=FEATURES)
    features = np.zeros((1, 9, 16), np.float32)
    features[:, 4:] = noise(5, 0)

    @jax.jit
    def gradient(key):
        def total(encoder):
            return jnp.sum(jnp.sin(encoder(features, np.array([9], np.int32))[0]))

        return jax.grad(total)(tdt.Transducer(config, rngs=nnx.Rngs(key)).encoder)

    for leaf in jax.tree.leaves(jax.device_get(gradient(jax.random.key(0)))):
        assert np.max(np.abs(leaf)) < 1e4
