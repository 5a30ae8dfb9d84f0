"""The decoder as compilers of TPUs and GPUs see it, where they are installed."""

import importlib.util

import pytest

from tdt_jax.benchmarks import decoder_aot
from tdt_jax.benchmarks.cases import MODELS
from tdt_jax.models.transducer import abstract_model
from tdt_jax.profiling import target

# The most kernels and copies in a turn of the greedy decoder of a 0.6 B TDT with 8192 labels: what
# decoding takes on a GPU. Lower these when they get fewer; they may not get more.
MOST_LAUNCHES = {1: 13, 32: 13}  # by batch, in bfloat16

needs_plugin = pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda13_plugin") is None, reason="needs jax_cuda13_plugin"
)


@pytest.mark.slow
@needs_plugin
@pytest.mark.parametrize("batch", MOST_LAUNCHES)
@pytest.mark.parametrize("name", ["0.6b", "rnnt-0.6b"])
def test_launches_of_a_turn(name, batch):
    options = dict(batches=[batch], seconds=30.0, dtype="bfloat16", target="h100")
    (report,) = decoder_aot.decoder_aot_reports([name], **options)
    assert report.rows[0]["turn_launches"]["most"] <= MOST_LAUNCHES[batch]


@pytest.mark.slow
@needs_plugin
def test_all_of_it_can_be_one_graph():
    """With loops among what XLA puts into CUDA graphs, the host submits one and waits for none."""
    kinds = "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,DYNAMIC_SLICE_FUSION,CONDITIONAL,WHILE"
    device = target.find("h100")
    device = device._replace(options=device.options | {"xla_gpu_enable_command_buffer": kinds})
    compiled = decoder_aot.compile_decoder(device, abstract_model(MODELS["0.6b"]), 2, 100)
    launches = compiled.counts({decoder_aot.TURN: 1}).launches
    assert (launches.by_host, launches.waits) == (1, 0)
