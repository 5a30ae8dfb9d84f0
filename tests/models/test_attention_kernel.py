"""The attention kernels, interpreted, against attention with all scores in memory."""

import functools
import importlib.util
import math

import jax
import jax.numpy as jnp
import models
import numpy as np
import pytest
from flax import nnx
from jax.sharding import SingleDeviceSharding

from tdt_jax.models import attention, attention_kernel, attention_kernel_gpu
from tdt_jax.models.attention import AttentionMask
from tdt_jax.models.attention_kernel import Tiles
from tdt_jax.models.layers import hashed_bytes, padding_mask
from tdt_jax.profiling import target as targets
from tdt_jax.profiling import tpu
from tdt_jax.runtime import backend, sharding

needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")


slow = functools.partial(pytest.param, marks=pytest.mark.slow)


def random(seed, *shape, dtype="float32"):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32).astype(dtype)


def visible(mask, size):
    return (mask or AttentionMask(0, size, 0)).visible(np.arange(size))


def plain(queries, others, keys, values, positions, num_frames, mask, rate=0.0, key=None):
    """The formula in float32: the output, zero for queries that are padding."""
    size, width = keys.shape[1], keys.shape[-1]
    arrays = (x.astype(jnp.float32) for x in (queries, others, keys, values, positions))
    queries, others, keys, values, positions = arrays
    by_distance = jnp.einsum("bthk,rhk->bhtr", others, positions)
    shifted = attention.relative_shift(by_distance, 1 - size, size)
    scores = (jnp.einsum("bthk,bshk->bhts", queries, keys) + shifted) / math.sqrt(width)
    first, end = visible(mask, size)
    s, padding = np.arange(size)[None, :], padding_mask(num_frames, size)
    hidden = ((s < first[:, None]) | (s >= end[:, None]))[None, None]
    hidden = hidden | padding[:, None, None, :]
    weights = jax.nn.softmax(jnp.where(hidden, -1e9, scores), axis=-1)
    weights = jnp.where(padding[:, None, :, None], 0.0, weights)
    if key is not None:
        kept = hashed_bytes(key, weights.shape) >= round(256 * rate)
        weights = jnp.where(kept, weights / (1 - round(256 * rate) / 256), 0.0)
    return jnp.einsum("bhts,bshk->bthk", weights, values)


def assert_equal_with_gradients(
    num_frames,
    heads,
    tiles=None,
    *,
    mask=None,
    dtype="float32",
    is_traced=False,
    mesh=None,
    **options,
):
    """That output and all gradients are those of the formula. A TPU's kernel has `tiles`."""
    batch, size, tolerance = len(num_frames), max(num_frames), 2e-6 if dtype == "float32" else 0.02
    arrays = [random(seed, batch, size, *heads, dtype=dtype) for seed in range(5)]
    gradient, arrays[4] = arrays[4], random(4, 2 * size - 1, *heads, dtype=dtype)
    num_frames, seen = np.array(num_frames, np.int32), visible(mask, size)
    if is_traced:
        seen = jax.device_put(seen)

    if tiles is None:
        attend = attention_kernel_gpu.attend
    else:
        attend = functools.partial(attention_kernel.attend, tiles=Tiles(*tiles))

    def kernel(*arrays):
        return attend(
            *arrays, num_frames, seen, furthest=size - 1, interpret=True, mesh=mesh, **options
        )

    def formula(*arrays):
        return plain(*arrays, num_frames, mask, **options).astype(dtype)

    def results(function):
        def run(*arrays):
            mixed, pull = jax.vjp(function, *arrays)
            return mixed, *pull(gradient)

        return [np.asarray(x, np.float32) for x in jax.jit(run)(*arrays)]

    for found, expected in zip(results(kernel), results(formula), strict=True):
        scale = max(1, np.max(np.abs(expected)))
        np.testing.assert_allclose(found, expected, atol=tolerance * scale)


@pytest.mark.parametrize(
    ("num_frames", "heads"),
    [([21, 9, 0], (2, 64)), slow([1], (2, 64)), slow([140, 128], (1, 128))],
)
def test_full_attention(num_frames, heads):
    """Two heads of 64 share a tile of lanes; frames are padded to tiles."""
    assert_equal_with_gradients(num_frames, heads, (8, 128))


def test_bfloat16():
    assert_equal_with_gradients([13, 9], (2, 64), (8, 128), dtype="bfloat16")


@pytest.mark.parametrize(
    ("mask", "is_traced"),
    [
        ((6, 1, 4), False), slow((6, 1, 4), True), slow((5, 3, 2), False), ((5, 3, 2), True),
        slow((0, 7, 0), False), slow((0, 7, 0), True),
    ],
)  # fmt: skip
def test_masks(mask, is_traced):
    """A band and chunks, known or drawn: some tiles are not visited, some hide all from a query."""
    mask = AttentionMask(*mask)
    assert_equal_with_gradients([140, 60], (1, 128), (16, 128), mask=mask, is_traced=is_traced)


def test_dropout_hashes_the_place_among_all_weights():
    options = dict(rate=0.3, key=jax.random.key(1))
    assert_equal_with_gradients([13, 9], (2, 64), (8, 128), **options)


def test_devices_compute_their_own_rows():
    """With the dropout that the rows have on one device, and the positions' gradient summed."""
    mesh = sharding.make_mesh(jax.devices()[:2])
    options = dict(rate=0.3, key=jax.random.key(1))
    assert_equal_with_gradients([9, 5], (1, 128), (8, 128), mesh=mesh, **options)


@pytest.fixture
def small_tiles(monkeypatch):
    """Makes a GPU's tiles small, so that few frames have several."""
    monkeypatch.setattr(attention_kernel_gpu, "TILE", 16)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize(
    ("num_frames", "heads", "dtype"),
    [
        ([37, 16, 0], (1, 16), "float32"), slow([1], (1, 16), "float32"),
        slow([48, 47, 33, 20, 5], (2, 32), "float32"), slow([37, 20], (2, 16), "bfloat16"),
    ],
)  # fmt: skip
def test_a_gpus_kernels_with_dropout(num_frames, heads, dtype):
    options = dict(rate=0.3, key=jax.random.key(1))
    assert_equal_with_gradients(num_frames, heads, dtype=dtype, **options)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize(
    ("mask", "is_traced"), [(None, False), ((6, 1, 4), False), ((5, 3, 2), True)]
)
@pytest.mark.slow
def test_a_gpus_kernels_with_masks(mask, is_traced):
    mask = mask and AttentionMask(*mask)
    assert_equal_with_gradients([50, 20], (1, 16), mask=mask, is_traced=is_traced)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.slow
def test_gpus_compute_their_own_rows():
    mesh = sharding.make_mesh(jax.devices()[:2])
    options = dict(rate=0.3, key=jax.random.key(1))
    assert_equal_with_gradients([19, 5], (1, 16), mesh=mesh, **options)


@pytest.mark.parametrize(
    ("width", "dtype", "expected"),
    [
        (64, "bfloat16", True),
        (48, "bfloat16", False),
        (256, "bfloat16", False),
        (64, "float32", False),
    ],
)
def test_a_gpus_kernels_are_for_some_heads(width, dtype, expected):
    assert attention_kernel_gpu.fits(width, jnp.dtype(dtype)) is expected


def test_tiles():
    found = [attention_kernel.tiles_for(num_frames) for num_frames in (1, 128, 375, 700, 1100)]
    assert found == [(128, keys) for keys in (128, 128, 384, 384, 384)]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((375, 8, 64), True), ((375, 8, 128), True), ((375, 1, 64), False), ((375, 4, 44), False),
        ((64, 8, 64), False), ((65, 8, 64), True),
    ],
)  # fmt: skip
def test_the_kernel_is_for_long_utterances_and_whole_heads(shape, expected):
    assert attention_kernel.gains(*shape) is expected


def layer_outputs(platform, mask, *, is_traced, dtype="float32", key=None):
    """What a layer with kernels returns, and one without."""
    config = models.encoder_config(width=128, num_heads=2)
    make = functools.partial(attention.RelativeAttention, config, dtype=jnp.dtype(dtype))
    layer, size = models.build(lambda: make(rngs=nnx.Rngs(0))), 67
    x, padding = random(0, 2, size, 128, dtype=dtype), padding_mask(np.array([size, 12]), size)
    blocks = attention.attention_blocks(None if is_traced else mask, size)
    positions = attention.position_encoding(blocks.furthest, blocks.nearest, 128).astype(dtype)
    for kernels in True, False:
        with backend.assume(platform, kernels=kernels, interpret=True):
            if is_traced:
                run = jax.jit(lambda mask: layer(x, positions, padding, mask=mask, key=key))
                mixed = run(jax.tree.map(jnp.int32, mask))
            else:
                mixed = jax.jit(lambda: layer(x, positions, padding, mask=mask, key=key))()
        yield np.asarray(mixed, np.float32)


@pytest.mark.parametrize(
    ("mask", "is_traced"),
    [slow(None, False), (AttentionMask(6, 1, 4), False), slow(AttentionMask(8, 4, 2), True)],
)
def test_the_layer_uses_it_on_a_tpu(mask, is_traced, monkeypatch):
    monkeypatch.setattr(attention_kernel, "tiles_for", lambda num_frames: Tiles(8, 128))
    found, expected = layer_outputs("tpu", mask, is_traced=is_traced)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.any(found != expected)


@pytest.mark.parametrize("mask", [slow(None), AttentionMask(6, 1, 4)])
def test_the_layer_uses_cudnn_on_a_gpu(mask):
    found, expected = layer_outputs("gpu", mask, is_traced=False, dtype="bfloat16")
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert 0 < error < 0.01


@pytest.mark.parametrize(("mask", "is_traced"), [(None, False), slow(AttentionMask(8, 4, 2), True)])
def test_the_layer_trains_by_kernels_on_a_gpu(mask, is_traced, monkeypatch):
    """And drops the weights that it drops without kernels."""
    calls, attend = [], attention_kernel_gpu.attend
    monkeypatch.setattr(
        attention_kernel_gpu, "attend", lambda *x, **y: (calls.append(1), attend(*x, **y))[1]
    )
    options = dict(is_traced=is_traced, dtype="bfloat16", key=jax.random.key(0))
    found, expected = layer_outputs("gpu", mask, **options)
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert error < 0.01 and len(calls) == 1


@pytest.mark.parametrize(
    ("num_frames", "mask", "is_trained", "dtype", "has_triton", "expected"),
    [
        (67, None, False, "bfloat16", True, ["cudnn"]),
        (64, None, False, "bfloat16", True, []),
        (67, AttentionMask(6, 1, 4), False, "bfloat16", True, []),
        (67, None, False, "float32", True, []),
        (67, None, True, "bfloat16", True, ["pallas"]),
        (67, None, True, "bfloat16", False, []),
        (67, None, True, "float32", True, []),
    ],
)
def test_a_gpus_default(num_frames, mask, is_trained, dtype, has_triton, expected, monkeypatch):
    """What an H100 has shown right and faster, as far as this jax has it."""
    monkeypatch.delenv("TDT_JAX_KERNELS", raising=False)
    monkeypatch.setattr(backend, "_kernels", [])  # --backend leaves them out
    monkeypatch.setattr(backend, "has_triton", lambda: has_triton)
    calls, modules = [], {"cudnn": (jax.nn, "dot_product_attention")}
    modules["pallas"] = attention_kernel_gpu, "attend"
    for name, (module, attribute) in modules.items():
        function = getattr(module, attribute)

        def called(*arrays, name=name, function=function, **options):
            calls.append(name)
            return function(*arrays, **options)

        monkeypatch.setattr(module, attribute, called)
    config = models.encoder_config(width=128, num_heads=2)
    make = functools.partial(attention.RelativeAttention, config, dtype=jnp.dtype(dtype))
    layer = models.build(lambda: make(rngs=nnx.Rngs(0)))
    blocks = attention.attention_blocks(mask, num_frames)
    positions = attention.position_encoding(blocks.furthest, blocks.nearest, 128).astype(dtype)
    padding, key = np.zeros((2, num_frames), bool), jax.random.key(0) if is_trained else None
    with backend.assume("gpu", interpret=True):
        x = jax.ShapeDtypeStruct((2, num_frames, 128), dtype)
        jax.eval_shape(lambda x: layer(x, positions, padding, mask=mask, key=key), x)
    assert calls == expected


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize("chip", ["v5e:2x2", "v6e:2x2"])
@pytest.mark.parametrize("heads", [(2, 64), (1, 128)])
def test_the_kernels_compile_for_a_tpu(heads, chip):
    place = SingleDeviceSharding(tpu.devices(chip)[0])

    def shape(*sizes, dtype=jnp.bfloat16):
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=place)

    def run(gradient, positions, *arrays):
        def attend(positions, *arrays):
            seen = visible(AttentionMask(140, 20, 60), 375)
            options = dict(furthest=374, rate=0.1, key=jax.random.key(0))
            return attention_kernel.attend(*arrays, positions, jnp.full(2, 375), seen, **options)

        return jax.vjp(attend, positions, *arrays)[1](gradient)

    array = shape(2, 375, *heads)
    compiled = jax.jit(run).lower(array, shape(749, *heads), *[array] * 4).compile()
    assert "attention_gradient" in compiled.as_text()


@pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda13_plugin") is None, reason="needs jax_cuda13_plugin"
)
@pytest.mark.slow
@pytest.mark.parametrize("heads", [(8, 64), (8, 128)])
def test_the_kernels_compile_for_a_gpu(heads):
    target = targets.find("h100")
    place = SingleDeviceSharding(target.devices[0])

    def shape(*sizes):
        return jax.ShapeDtypeStruct(sizes, jnp.bfloat16, sharding=place)

    def run(gradient, positions, *arrays):
        def attend(positions, *arrays):
            options = dict(furthest=374, rate=0.1, key=jax.random.key(0))
            seen = visible(AttentionMask(140, 20, 60), 375)
            return attention_kernel_gpu.attend(
                *arrays, positions, jnp.full(2, 375), seen, **options
            )

        return jax.vjp(attend, positions, *arrays)[1](gradient)

    array = shape(2, 375, *heads)
    with targets.lowering(target):
        lowered = jax.jit(run).lower(array, shape(749, *heads), *[array] * 4)
    kernels = targets.compile(lowered, target).kernels
    names = {each.name for each in kernels or ()}
    assert not kernels or names >= {"attention", "attention_gradient"}
