"""The encoder against the same formulas in numpy, one utterance and one frame at a time."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx

import tdt_jax as tdt
from tdt_jax import encoder as encoders

LENGTHS = np.array([40, 0, 19], np.int32)


def features(lengths=LENGTHS, size=40, garbage=0.0, seed=0):
    """Features of some lengths, the same whatever the size."""
    rows = [np.random.default_rng((seed, b)).normal(size=(60, 16)) for b in range(len(lengths))]
    x = np.full((len(lengths), size, 16), garbage, np.float32)
    for row, values, length in zip(x, rows, lengths, strict=True):
        row[:length] = values[:length]
    return x


@functools.cache
def model(**changes):
    dtype = changes.pop("dtype", "float32")
    return tiny.transducer(tiny.config(encoder=tiny.encoder_config(**changes), dtype=dtype))


def key(seed):
    """A key whose generator compiles fast."""
    return jax.random.key(seed, impl="rbg")


# The reference


def linear(layer, x):
    y = x @ np.asarray(layer.kernel[...], np.float64)
    return y if layer.bias is None else y + np.asarray(layer.bias[...])


def norm(layer, x):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-5)
    return x * np.asarray(layer.scale[...]) + np.asarray(layer.bias[...])


def silu(x):
    return x / (1 + np.exp(-x))


def strided(x, kernel):
    """3 x 3, stride 2, zero padded by one: x [M, F, I], kernel [3, 3, I, O]."""
    rows, columns = ((size - 1) // 2 + 1 for size in x.shape[:2])
    x = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    y = np.zeros((rows, columns, kernel.shape[-1]))
    for t, f in np.ndindex(rows, columns):
        y[t, f] = np.einsum("ijc,ijco->o", x[2 * t : 2 * t + 3, 2 * f : 2 * f + 3], kernel)
    return y


def subsample(layer, x):
    """[M, F] -> [T, D]."""
    x = strided(x[:, :, None], np.asarray(layer.convolution.kernel[...]))
    x = np.maximum(x + np.asarray(layer.convolution.bias[...]), 0)
    for kernel, bias, pointwise in (
        (layer.depthwise1, layer.depthwise1_bias, layer.pointwise1),
        (layer.depthwise2, layer.depthwise2_bias, layer.pointwise2),
    ):
        kernel = np.asarray(kernel[...])[..., None] * np.eye(x.shape[-1])
        x = np.maximum(linear(pointwise, strided(x, kernel) + np.asarray(bias[...])), 0)
    return linear(layer.output, x.transpose(0, 2, 1).reshape(len(x), -1))


def sinusoid(position, width):
    angles = position / 10000 ** (np.arange(0, width, 2) / width)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(width)


def attend(layer, x):
    """Transformer-XL attention [T, D] -> [T, D], a score at a time."""
    layer = tiny.numpy_model(layer)
    num_frames, width = x.shape
    size = width // layer.num_heads
    query, key, value = (linear(each, x) for each in (layer.query, layer.key, layer.value))
    mixed = np.zeros_like(x)
    for h in range(layer.num_heads):
        head = slice(h * size, (h + 1) * size)
        u, v = np.asarray(layer.content_bias[h]), np.asarray(layer.position_bias[h])
        for t in range(num_frames):
            scores = np.zeros(num_frames)
            for s in range(num_frames):
                distance = linear(layer.position, sinusoid(t - s, width))[head]
                scores[s] = (query[t, head] + u) @ key[s, head] + (query[t, head] + v) @ distance
            weights = np.exp(scores / math.sqrt(size))
            mixed[t, head] = weights @ value[:, head] / weights.sum()
    return linear(layer.output, mixed)


def convolve(layer, x):
    """Pointwise, GLU, depthwise, norm, SiLU, pointwise: [T, D] -> [T, D]."""
    x, gate = np.split(linear(layer.pointwise1, x), 2, axis=-1)
    x, kernel = x / (1 + np.exp(-gate)), np.asarray(layer.depthwise[...])
    padded = np.pad(x, ((len(kernel) // 2, len(kernel) // 2), (0, 0)))
    x = np.stack([(padded[t : t + len(kernel)] * kernel).sum(0) for t in range(len(x))])
    if layer.depthwise_bias is not None:
        x = x + np.asarray(layer.depthwise_bias[...])
    return linear(layer.pointwise2, silu(norm(layer.norm, x)))


def feed_forward(layer, x):
    return linear(layer.linear2, silu(linear(layer.linear1, x)))


def reference(encoder, x):
    """One utterance without padding, in float64: [M, F] -> [T, D]."""
    encoder = tiny.numpy_model(encoder)
    x = subsample(encoder.subsampling, x.astype(np.float64))
    if encoder.config.scale_input:
        x = x * math.sqrt(encoder.config.width)
    for i in range(encoder.config.num_layers):
        block = jax.tree.map(lambda leaf, i=i: leaf[i], encoder.blocks)
        x = x + 0.5 * feed_forward(block.feed_forward1, norm(block.feed_forward1_norm, x))
        x = x + attend(block.attention, norm(block.attention_norm, x))
        x = x + convolve(block.convolution, norm(block.convolution_norm, x))
        x = x + 0.5 * feed_forward(block.feed_forward2, norm(block.feed_forward2_norm, x))
        x = norm(block.output_norm, x)
    return x


@pytest.mark.parametrize("changes", [{}, dict(use_bias=False, scale_input=True)])
def test_encoder_follows_the_formulas(changes):
    """Each utterance as if it were alone and unpadded; padded frames are zero."""
    x = features()
    frames, num_frames = tdt.encode(model(**changes), x, LENGTHS)
    assert frames.shape == (3, 5, 16) and frames.dtype == jnp.float32
    np.testing.assert_array_equal(num_frames, [5, 0, 3])
    for b in (0, 2):
        expected = reference(model(**changes).encoder, x[b, : LENGTHS[b]])
        np.testing.assert_allclose(frames[b, : len(expected)], expected, atol=2e-5)
        assert not np.any(frames[b, len(expected) :])
    assert not np.any(frames[1])


# Its parts


def test_subsampled_length_is_three_strided_convolutions():
    for length in range(101):
        expected = length
        for _ in range(3):
            # Windows of 3 that start at -1, 1, 3, ... and have their centre inside.
            expected = len(range(0, expected, 2))
        assert encoders.subsampled_length(length) == expected == math.ceil(length / 8)
    lengths = np.arange(101)
    np.testing.assert_array_equal(encoders.subsampled_length(lengths), np.ceil(lengths / 8))


def test_padding_mask():
    expected = [[True, True, True], [False, True, True], [False, False, False]]
    np.testing.assert_array_equal(encoders.padding_mask(np.array([0, 1, 3]), 3), expected)


@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_relative_shift_is_a_gather(num_frames):
    shape = (2, 3, num_frames, 2 * num_frames - 1)
    scores = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    shifted = encoders.relative_shift(scores)
    assert shifted.shape == (2, 3, num_frames, num_frames)
    for t, s in np.ndindex(num_frames, num_frames):
        np.testing.assert_array_equal(shifted[..., t, s], scores[..., t, num_frames - 1 - t + s])


def test_position_encoding():
    """sin and cos in turn, from the furthest future key's distance down to the furthest past's."""
    encoding = encoders.position_encoding(6, 8)
    expected = np.stack([sinusoid(distance, 8) for distance in range(5, -6, -1)])
    np.testing.assert_allclose(encoding, expected, atol=1e-6)


@pytest.mark.parametrize("use_bias", [True, False])
def test_attention_follows_transformer_xl(use_bias):
    config = tiny.encoder_config(use_bias=use_bias, num_heads=4)
    make = functools.partial(encoders.RelativeAttention, config, dtype=jnp.dtype("float32"))
    layer = tiny.build(lambda: make(rngs=nnx.Rngs(0)))
    x = np.random.default_rng(1).normal(size=(2, 6, 16)).astype(np.float32)
    x[1, 4:] = 99
    padding = encoders.padding_mask(np.array([6, 4]), 6)
    positions = encoders.position_encoding(6, 16)
    mixed = jax.jit(type(layer).__call__)(layer, x, positions, padding)
    np.testing.assert_allclose(mixed[0], attend(layer, x[0]), atol=1e-5)
    np.testing.assert_allclose(mixed[1, :4], attend(layer, x[1, :4]), atol=1e-5)


def test_dropout():
    x = jnp.ones((100, 100))
    assert encoders.dropout(x, 0.25, None) is x and encoders.dropout(x, 0.0, key(0)) is x
    y = encoders.dropout(x, 0.25, key(0))
    np.testing.assert_allclose(np.unique(y), [0, 1 / 0.75], rtol=1e-6)
    np.testing.assert_allclose(np.mean(y == 0), 0.25, atol=0.02)
    assert encoders.dropout(x.astype(jnp.bfloat16), 0.25, key(0)).dtype == jnp.bfloat16


def test_split():
    assert encoders.split(None, 3) == [None] * 3
    keys = [jax.random.key_data(each).tolist() for each in encoders.split(key(0), 3)]
    assert len({tuple(each) for each in keys}) == 3


# Invariances


def test_padding_has_no_influence():
    frames, _ = tdt.encode(model(), features(), LENGTHS)
    for garbage in (1e4, np.nan):
        garbled, _ = tdt.encode(model(), features(garbage=garbage), LENGTHS)
        np.testing.assert_array_equal(garbled, frames)
    longer, num_frames = tdt.encode(model(), features(size=57, garbage=3.0), LENGTHS)
    np.testing.assert_array_equal(num_frames, [5, 0, 3])
    np.testing.assert_allclose(longer[:, :5], frames, atol=1e-5)  # other sums
    assert longer.shape[1] == 8 and not np.any(longer[:, 5:])


def test_the_rest_of_the_batch_has_no_influence():
    x = features()
    frames, _ = tdt.encode(model(), x, LENGTHS)
    others, lengths = features(seed=1), np.array([3, 40, 19], np.int32)
    others[2] = x[2]
    np.testing.assert_allclose(tdt.encode(model(), others, lengths)[0][2], frames[2], atol=1e-6)
    alone, _ = tdt.encode(model(), x[2:], LENGTHS[2:])
    np.testing.assert_allclose(alone[0], frames[2], atol=1e-5)


def test_remat_and_unrolling_change_no_gradient():
    """With dropout, which the backward pass must draw again; an empty utterance gives no NaN."""

    def gradients(**changes):
        @functools.partial(jax.jit, compiler_options=tiny.QUICK)
        @functools.partial(jax.grad, argnums=(0, 1))
        def gradient(encoder, x):
            frames, _ = encoder(x, LENGTHS, key=key(3))
            return jnp.sum(jnp.sin(frames + 1))

        return gradient(model(dropout=0.2, **changes).encoder, features())

    recomputed, kept = gradients(remat=True), gradients(remat=False, unroll=2)
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(recomputed)]
    leaves = zip(names, *map(jax.tree.leaves, (recomputed, kept)), strict=True)
    for name, one, other in leaves:
        assert np.all(np.isfinite(one)) and np.any(one), name
        np.testing.assert_allclose(one, other, atol=2e-5 * max(1, np.max(np.abs(one))))
    padding = np.arange(40) >= LENGTHS[:, None]
    assert not np.any(np.asarray(recomputed[1])[padding])


def test_remat_is_there_when_asked_for():
    for remat in (True, False):
        encoder = model(remat=remat).encoder
        traced = str(jax.make_jaxpr(lambda x, encoder=encoder: encoder(x, LENGTHS))(features()))
        assert ("remat" in traced) == remat


def test_dropout_comes_with_a_key_only():
    dropping = model(dropout=0.2, attention_dropout=0.2)
    plain, _ = tdt.encode(model(dropout=0.0, attention_dropout=0.0), features(), LENGTHS)
    np.testing.assert_array_equal(tdt.encode(dropping, features(), LENGTHS)[0], plain)
    encode = jax.jit(
        lambda key: dropping.encoder(features(), LENGTHS, key=key)[0],
        compiler_options=tiny.QUICK,
    )
    one, again, other = (encode(key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.max(np.abs(one - plain)) > 0.1 and np.max(np.abs(one - other)) > 0.1
    assert not np.any(one[1]) and not np.any(one[2, 3:])


def test_every_part_drops():
    """The attention's weights, the feed-forward's hidden layer, what a block adds to x."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 5, 16)), jnp.float32)
    positions, padding = encoders.position_encoding(5, 16), jnp.zeros((1, 5), bool)
    encoder = model(dropout=0.5, attention_dropout=0.5).encoder
    block = jax.tree.map(lambda leaf: leaf[0], tiny.numpy_model(encoder.blocks))

    @functools.partial(jax.jit, compiler_options=tiny.QUICK)
    def parts(block, key):
        return (
            block.attention(x, positions, padding, key=key),
            block.feed_forward1(x, key=key),
            block(x, positions, padding, key=key),
        )

    for one, other in zip(parts(block, key(0)), parts(block, key(1)), strict=True):
        assert np.any(one != other)


# Dtypes and parameters


def test_bfloat16_computes_on_float32_parameters():
    half = model(dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {jnp.dtype("float32")}
    with jax.numpy_dtype_promotion("standard"):  # flax's norms promote to float32 implicitly
        frames, _ = tdt.encode(half, features(), LENGTHS)
    assert frames.dtype == jnp.bfloat16 and not np.any(frames[1])
    expected, _ = tdt.encode(model(), features(), LENGTHS)
    error = np.abs(np.asarray(frames, np.float32) - expected)
    assert 0 < np.max(error) < 0.2 and np.mean(error) < 0.02  # of frames of deviation one


def names(tree):
    paths = [path for path, _ in jax.tree.leaves_with_path(tree)]
    return [jax.tree_util.keystr(path, simple=True, separator=".") for path in paths]


def test_use_bias_false_leaves_norms_and_attention_biases_only():
    def biases(use_bias):
        blocks = model(use_bias=use_bias).encoder.blocks
        found = [name.removesuffix(".value") for name in names(blocks)]
        return {name for name in found if name.endswith("bias") and "norm" not in name}

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


def test_encode_compiles_once_per_shape():
    """Not again for other values, nor for another model of an equal configuration."""
    lengths = np.array([33, 7, 12], np.int32)
    x = features(lengths, size=33)
    first = tiny.transducer(tiny.config())
    assert tiny.num_compilations(tdt.encode, first, x, lengths) == 1
    assert tiny.num_compilations(tdt.encode, first, x + 1, lengths[::-1].copy()) == 0
    assert tiny.num_compilations(tdt.encode, first, jnp.asarray(x), jnp.asarray(lengths)) == 0
    second = tiny.transducer(tiny.config(), seed=1)
    assert tiny.num_compilations(tdt.encode, second, x, lengths) == 0
    updated = jax.tree.map(lambda leaf: leaf * 0.5, tiny.numpy_model(second))
    assert tiny.num_compilations(tdt.encode, updated, x, lengths) == 0
    assert tiny.num_compilations(tdt.encode, first, features(lengths, size=34), lengths) == 1


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
