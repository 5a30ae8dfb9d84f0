"""The decoder as compilers of TPUs and GPUs see it, where they are installed."""

import importlib.util

import pytest

from tdt_jax.benchmarks import decoder_aot

# The most kernels and copies in a turn of the greedy decoder of a 0.6 B TDT with 8192 labels: what
# decoding takes on a GPU. Lower these when they get fewer; they may not get more.
MOST_LAUNCHES = {1: 41, 32: 35}  # by batch, in bfloat16


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda13_plugin") is None, reason="needs jax_cuda13_plugin"
)
@pytest.mark.parametrize("batch", MOST_LAUNCHES)
def test_launches_of_a_turn(batch):
    options = dict(batches=[batch], seconds=30.0, dtype="bfloat16", target="h100")
    (report,) = decoder_aot.decoder_aot_reports(["0.6b"], **options)
    assert report.rows[0]["turn_launches"]["most"] <= MOST_LAUNCHES[batch]
