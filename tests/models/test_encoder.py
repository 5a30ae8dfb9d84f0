"""The encoder against the same formulas in numpy, one utterance and one frame at a time."""

import collections
import functools
import itertools

import jax
import jax.numpy as jnp
import models
import numpy as np
import pytest
import reference_encoder
from compilations import num_compilations

import tdt_jax as tdt
from tdt_jax.models import attention, with_separate_blocks
from tdt_jax.models.attention import random_mask
from tdt_jax.runtime.pytree import named_leaves

LENGTHS = np.array([40, 0, 19], np.int32)
DROPPING = dict(dropout=0.2, attention_dropout=0.2)
WITHOUT_BIASES = dict(use_bias=False, scale_input=True)
CAUSAL = dict(
    chunked_contexts=((6, 2), (2, 1), (3, 0), (0, 0)),
    convolution_context=(4, 0),
    causal_subsampling=True,
)
UNIFIED = dict(unified_contexts=((4, 2), (1, 2, 13), (0, 1)), scale_input=True)


def features(lengths=LENGTHS, size=40, garbage=0.0, seed=0):
    """Features of utterances of some lengths, the same whatever the size of the batch."""
    rows = [np.random.default_rng((seed, b)).normal(size=(60, 16)) for b in range(len(lengths))]
    x = np.full((len(lengths), size, 16), garbage, np.float32)
    for row, values, length in zip(x, rows, lengths, strict=True):
        row[:length] = values[:length]
    return x


@functools.cache
def model(**changes):
    dtype = changes.pop("dtype", "float32")
    return models.transducer(models.config(encoder=models.encoder_config(**changes), dtype=dtype))


def encode(*arguments, **options):
    """`tdt.encode` in numpy."""
    return jax.device_get(tdt.encode(*arguments, **options))


def key(seed):
    """A key whose generator compiles fast."""
    return jax.random.key(seed, impl="rbg")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        WITHOUT_BIASES,
        dict(convolution_norm="affine", attention_context=(2, 1)),
    ],
)
def test_encoder_follows_the_formulas(changes):
    """Each utterance as if it were alone and unpadded; padded frames are zero."""
    x = features()
    frames, num_frames = encode(model(**changes), x, LENGTHS)
    assert frames.shape == (3, 5, 16) and frames.dtype == jnp.float32
    np.testing.assert_array_equal(num_frames, [5, 0, 3])
    for b in (0, 2):
        expected = reference_encoder.encode(model(**changes).encoder, x[b, : LENGTHS[b]])
        np.testing.assert_allclose(frames[b, : len(expected)], expected, atol=2e-5)
        assert not np.any(frames[b, len(expected) :])
    assert not np.any(frames[1])


@pytest.mark.parametrize(
    ("changes", "context"),
    [
        *((CAUSAL, context) for context in (None, *CAUSAL["chunked_contexts"][1:])),
        *((UNIFIED, context) for context in (None, (4, 2, 1), (2, 1, 0), (2, 13, 1))),
        (dict(chunked_contexts=((2, 1),), convolution_context=(3, 1)), None),
        (dict(causal_subsampling=True, attention_context=(2, 1), **WITHOUT_BIASES), None),
    ],
)
def test_every_context_follows_the_formulas(changes, context):
    """In blocks and in one, short utterances and long ones, with NaN for padding."""
    lengths = np.array([60, 0, 33, 8, 1], np.int32)
    x = features(lengths, size=60, garbage=np.nan)
    encoder = model(**changes).encoder
    frames, num_frames = encode(model(**changes), x, lengths, context=context)
    causal = encoder.config.causal_subsampling
    assert frames.shape == (5, 9 if causal else 8, 16)
    np.testing.assert_array_equal(num_frames, [9, 0, 5, 2, 1] if causal else [8, 0, 5, 1, 1])
    for row, values, length, count in zip(frames, x, lengths, num_frames, strict=True):
        if count:
            expected = reference_encoder.encode(encoder, values[:length], context)
            np.testing.assert_allclose(row[:count], expected, atol=3e-5)
        assert not np.any(row[count:])


@pytest.mark.slow
def test_contexts_differ():
    """The first of several is the default; unified models have full attention by default."""
    causal, unified = model(**CAUSAL), model(**UNIFIED)
    plain = model(scale_input=True)
    x = features()
    default, first, second = (
        encode(causal, x, LENGTHS, context=context)[0] for context in (None, (6, 2), (2, 1))
    )
    np.testing.assert_array_equal(default, first)
    assert np.max(np.abs(first - second)) > 0.01
    np.testing.assert_array_equal(encode(unified, x, LENGTHS)[0], encode(plain, x, LENGTHS)[0])


@pytest.mark.parametrize(
    ("changes", "context", "message"),
    [
        (
            CAUSAL,
            (6, 1),
            r"no attention context \(6, 1\); it has \(6, 2\) and \(2, 1\) and \(3, 0\)",
        ),
        (CAUSAL, (4, 2, 1), r"no attention context \(4, 2, 1\); it has \(6, 2\)"),
        (UNIFIED, (4, 2, 2), r"\(4, 2, 2\); .*\(4, 2\) and \(1, 2, 13\) and \(0, 1\)"),
        (UNIFIED, (4, 2), r"\(4, 2\); it has \(left, chunk, right\) from \(4, 2\) and \(1, 2"),
        ({}, (4, 2), r"\(4, 2\); it has none to choose from"),
        (dict(attention_context=(4, 2)), (2, 2), r"\(2, 2\); it has none to choose from"),
    ],
)
def test_an_unknown_context_is_refused(changes, context, message):
    with pytest.raises(ValueError, match=message):
        tdt.encode(model(**changes), features(), LENGTHS, context=context)


# The context of a training batch


def draw(num_frames=9, num_draws=400, **changes):
    """How often each mask is drawn."""
    config = models.encoder_config(**changes)
    keys = jax.random.split(jax.random.key(0), num_draws)
    masks = jax.jit(jax.vmap(lambda key: random_mask(config, key, num_frames)))(keys)
    return collections.Counter(zip(*(each.tolist() for each in masks), strict=True))


def test_each_context_is_drawn_alike():
    """Within four deviations of a binomial distribution."""
    counts = draw(**CAUSAL)
    assert set(counts) == {(6, 3, 0), (2, 2, 0), (3, 1, 0), (0, 1, 0)}
    assert all(65 <= count <= 135 for count in counts.values())


def test_half_of_the_batches_of_a_unified_model_are_whole():
    counts = draw(**UNIFIED)
    whole = counts.pop((0, 9, 0))
    assert 160 <= whole <= 240
    assert set(counts) == set(itertools.product(*UNIFIED["unified_contexts"]))
    for i, choices in enumerate(UNIFIED["unified_contexts"]):
        for choice in choices:
            share = sum(n for mask, n in counts.items() if mask[i] == choice) / (400 - whole)
            assert abs(share - 1 / len(choices)) < 0.15


def test_a_single_context_is_known_when_traced():
    """So that training, too, computes no scores that it hides."""
    for changes, expected in (
        (dict(chunked_contexts=((6, 2),)), (6, 3, 0)),
        (dict(attention_context=(4, 2)), (4, 1, 2)),
        ({}, None),
    ):
        config = models.encoder_config(**changes)
        assert random_mask(config, key(0), 9) == expected


@pytest.mark.slow
def test_the_key_alone_decides_the_context():
    """Frames in training are those of `encode` in a context, for other features in the same."""
    contexts = (6, 2), (0, 0)
    trained = model(**{**CAUSAL, "chunked_contexts": contexts}, dropout=0.0, attention_dropout=0.0)
    batches = features(), features(seed=1)
    run = jax.jit(lambda x, key, **options: trained.encoder(x, LENGTHS, key=key, **options)[0])
    expected = [[encode(trained, x, LENGTHS, context=c)[0] for c in contexts] for x in batches]
    drawn = set()
    for seed in range(6):
        near = [
            [np.allclose(run(x, key(seed)), each, atol=3e-5) for each in of_contexts]
            for x, of_contexts in zip(batches, expected, strict=True)
        ]
        assert near[0] == near[1] and sum(near[0]) == 1
        drawn.add(near[0].index(True))
    assert drawn == {0, 1}


def test_a_context_that_is_given_is_not_drawn():
    encoder, x = model(**CAUSAL, **DROPPING).encoder, features()

    def draws(context):
        encode_in = functools.partial(encoder, context=context)
        return "randint" in str(jax.make_jaxpr(lambda key: encode_in(x, LENGTHS, key=key))(key(0)))

    assert draws(None) and not draws((0, 0))


@pytest.mark.slow
def test_gradients_flow_in_a_context_that_is_drawn():
    """To the features that a frame depends on, whichever of two contexts it is, and no others."""
    changes = {**CAUSAL, "chunked_contexts": ((2, 1), (0, 1))}
    options = dict(remat=False, dropout=0.0, attention_dropout=0.0)
    encoder = models.numpy_model(model(**changes, **options).encoder)

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1))
    def gradient(encoder, x, key):
        return jnp.sum(jnp.sin(encoder(x, LENGTHS, key=key)[0][0, 2] + 1))

    by_parameter, by_features = jax.device_get(gradient(encoder, features(seed=1), key(0)))
    for name, leaf in named_leaves(by_parameter).items():
        assert np.all(np.isfinite(leaf)) and np.any(leaf), name
    seen = np.any(by_features[0] != 0, axis=-1)
    np.testing.assert_array_equal(seen, np.arange(40) <= 24)  # chunk 1 ends with frame 3
    assert not np.any(by_features[1:])


# Invariances


def test_padding_has_no_influence():
    frames, _ = encode(model(), features(), LENGTHS)
    for garbage in (1e4, np.nan):
        garbled, _ = encode(model(), features(garbage=garbage), LENGTHS)
        np.testing.assert_array_equal(garbled, frames)
    longer, num_frames = encode(model(), features(size=57, garbage=3.0), LENGTHS)
    np.testing.assert_array_equal(num_frames, [5, 0, 3])
    np.testing.assert_allclose(longer[:, :5], frames, atol=1e-5)  # other sums
    assert longer.shape[1] == 8 and not np.any(longer[:, 5:])


def test_the_rest_of_the_batch_has_no_influence():
    x = features()
    frames, _ = encode(model(), x, LENGTHS)
    others, lengths = features(seed=1), np.array([3, 40, 19], np.int32)
    others[2] = x[2]
    np.testing.assert_allclose(encode(model(), others, lengths)[0][2], frames[2], atol=1e-6)
    alone, _ = encode(model(), x[2:], LENGTHS[2:])
    np.testing.assert_allclose(alone[0], frames[2], atol=1e-5)


def gradients(**changes):
    """The gradient of a sum of frames by parameter name, and by features, with dropout."""

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1))
    def gradient(encoder, x):
        frames, _ = encoder(x, LENGTHS, key=key(3))
        return jnp.sum(jnp.sin(frames + 1))

    options = dict(kernel_size=3, dropout=0.0, attention_dropout=0.2)
    encoder = models.numpy_model(model(**options, **changes).encoder)
    by_parameter, by_features = jax.device_get(gradient(encoder, features()))
    return named_leaves(by_parameter), by_features


@pytest.fixture(scope="module")
def recomputed():
    return gradients()


@pytest.mark.slow
def test_every_parameter_has_a_gradient(recomputed):
    """An empty utterance gives no NaN, and padding no gradient."""
    by_parameter, by_features = recomputed
    for name, leaf in by_parameter.items():
        assert np.all(np.isfinite(leaf)) and np.any(leaf), name
    assert np.all(np.isfinite(by_features)) and np.any(by_features)
    padding = np.arange(40) >= LENGTHS[:, None]
    assert not np.any(by_features[padding])


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [dict(remat=False), pytest.param(dict(remat=False, unroll=2), marks=pytest.mark.slow)],
)
def test_remat_and_unrolling_change_no_gradient(recomputed, changes):
    """Although the backward pass draws dropout again."""
    by_parameter, by_features = gradients(**changes)
    pairs = [(recomputed[0][name], leaf) for name, leaf in by_parameter.items()]
    for one, other in [*pairs, (recomputed[1], by_features)]:
        np.testing.assert_allclose(one, other, atol=2e-5 * max(1, np.max(np.abs(one))))


def test_remat_is_there_when_asked_for():
    for options in ({}, dict(remat=False)):
        encoder = model(**options).encoder
        traced = str(jax.make_jaxpr(lambda x, encoder=encoder: encoder(x, LENGTHS))(features()))
        assert ("remat" in traced) == (encoder.config.remat is not False) == (not options)


def test_dropout_comes_with_a_key_only():
    dropping = model(**DROPPING)
    plain, _ = encode(model(), features(), LENGTHS)
    np.testing.assert_array_equal(encode(dropping, features(), LENGTHS)[0], plain)
    drop = jax.jit(lambda key: dropping.encoder(features(), LENGTHS, key=key)[0])
    one, again, other = (np.asarray(drop(key(seed))) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.max(np.abs(one - plain)) > 0.1 and np.max(np.abs(one - other)) > 0.1
    assert not np.any(one[1]) and not np.any(one[2, 3:])


def test_every_part_drops():
    """The attention's weights, the feed-forward's hidden layer, what a block adds to its input."""
    x = np.random.default_rng(0).normal(size=(1, 5, 16)).astype(np.float32)
    positions, padding = attention.position_encoding(4, -4, 16), np.zeros((1, 5), bool)
    encoder = model(**DROPPING).encoder
    block = jax.tree.map(lambda leaf: leaf[0], models.numpy_model(encoder.blocks))

    @jax.jit
    def parts(block, key):
        return (
            block.attention(x, positions, padding, key=key),
            block.feed_forward1(x, key=key),
            block(x, positions, padding, key=key),
        )

    for one, other in zip(
        *jax.device_get((parts(block, key(0)), parts(block, key(1)))), strict=True
    ):
        assert np.any(one != other)


# Dtypes and parameters


def test_bfloat16_computes_on_float32_parameters():
    half = model(dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {jnp.dtype("float32")}
    with jax.numpy_dtype_promotion("standard"):  # flax's norms promote to float32 implicitly
        frames, _ = encode(half, features(), LENGTHS)
    assert frames.dtype == jnp.bfloat16 and not np.any(frames[1])
    expected, _ = encode(model(), features(), LENGTHS)
    error = np.abs(np.asarray(frames, np.float32) - expected)
    assert 0 < np.max(error) < 0.2 and np.mean(error) < 0.02  # of frames of deviation one


def test_use_bias_false_leaves_norms_and_attention_biases_only():
    def biases(use_bias):
        options = {} if use_bias else WITHOUT_BIASES
        names = named_leaves(model(**options).encoder.blocks)
        return {name for name in names if name.endswith("bias") and "norm" not in name}

    attention = {"attention.content_bias", "attention.position_bias"}
    assert biases(False) == attention
    linears = {
        *(f"feed_forward{i}.linear{j}.bias" for i in (1, 2) for j in (1, 2)),
        *(f"attention.{name}.bias" for name in ("query", "key", "value", "output")),
        *(f"convolution.{name}" for name in ("pointwise1.bias", "pointwise2.bias")),
        "convolution.depthwise_bias",
    }
    assert biases(True) == attention | linears


def test_blocks_are_stacked():
    shapes = {leaf.shape[0] for leaf in jax.tree.leaves(model().encoder.blocks)}
    assert shapes == {2}


# Compilation


def test_separate_blocks_compute_the_same():
    causal = dict(chunked_contexts=((4, 1),), convolution_context=(4, 0), causal_subsampling=True)
    stacked = model(**causal)

    @jax.jit
    def encode_both_ways(separate, *batch):
        last = jnp.full(LENGTHS.shape, True)
        in_chunks = tdt.encode_chunk(separate, *batch, tdt.start_encoding(separate, 3), last)
        return *tdt.encode(separate, *batch), *in_chunks[:2]

    expected, num_frames = encode(stacked, features(), LENGTHS)
    separate = with_separate_blocks(stacked)
    *whole, frames, counts = encode_both_ways(separate, features(), LENGTHS)
    np.testing.assert_array_equal(num_frames, counts)
    for each in (whole[0], frames[:, : expected.shape[1]]):
        np.testing.assert_allclose(each, expected, atol=1e-5)


def test_separate_blocks_share_memory_on_a_cpu():
    stacked = model(width=32)  # blocks begin at multiples of 64 bytes: others are copied
    kernels = stacked.encoder.blocks.feed_forward1.linear1.kernel[...]
    _, second = with_separate_blocks(stacked).encoder.blocks
    separate = second.feed_forward1.linear1.kernel[...]
    offset = separate.unsafe_buffer_pointer() - kernels.unsafe_buffer_pointer()
    assert offset == separate.nbytes


def test_encode_compiles_once_per_shape():
    """Not again for other values, nor for another model of an equal configuration."""
    lengths = np.array([33, 7, 12], np.int32)
    x = features(lengths, size=33)
    first = models.transducer(models.config())
    assert num_compilations(tdt.encode, first, x, lengths) == 1
    assert num_compilations(tdt.encode, first, x + 1, lengths[::-1].copy()) == 0
    assert num_compilations(tdt.encode, first, *jax.device_put((x, lengths))) == 0
    second = models.transducer(models.config(), seed=1)
    assert num_compilations(tdt.encode, second, x, lengths) == 0
    updated = jax.tree.map(lambda leaf: leaf * 0.5, models.numpy_model(second))
    assert num_compilations(tdt.encode, updated, x, lengths) == 0
    assert num_compilations(tdt.encode, first, features(lengths, size=34), lengths) == 1


@pytest.mark.parametrize(
    ("shape", "lengths", "message"),
    [
        ((3, 40, 17), (3,), r"\[B, M > 0, 16\].*\(3, 40, 17\)"),
        ((40, 16), (40,), r"\[B, M > 0, 16\].*\(40, 16\)"),
        ((3, 0, 16), (3,), r"\[B, M > 0, 16\].*\(3, 0, 16\)"),
        ((3, 40, 16), (2,), r"num_features \[B\].*\(2,\) and \(3, 40, 16\)"),
    ],
)
def test_bad_shapes_are_named(shape, lengths, message):
    with pytest.raises(ValueError, match=message):
        tdt.encode(model(), np.zeros(shape, np.float32), np.zeros(lengths, np.int32))
