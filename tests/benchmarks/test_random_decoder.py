"""The random decoder: always the same, and as talkative as speech."""

from types import SimpleNamespace

import jax
import models
import numpy as np
import pytest

from tdt_jax.benchmarks import random_decoder
from tdt_jax.decoding.greedy import greedy_decode


def test_the_bytes_of_an_iteration():
    """Two LSTMs of two 8 x 32 matrices and biases, 8 x 12; 12 x 7 tokens and 12 x 3 durations."""
    size = random_decoder.iteration_bytes(random_decoder.make_model(models.config(), 0.0))
    assert size.predictor == 4 * (2 * 2 * (8 * 32 + 32) + 8 * 12 + 12)
    assert size.heads == 4 * (12 * 7 + 7 + 12 * 3 + 3)
    rnnt = random_decoder.iteration_bytes(random_decoder.make_model(models.config(None), 0.0))
    assert rnnt == (4 * (12 * 7 + 7), size.predictor)
    ctc = SimpleNamespace(predictor=None, joint=None)
    with pytest.raises(ValueError, match="a CTC model has no decoder"):
        random_decoder.iteration_bytes(ctc)


@pytest.mark.slow
def test_labels_come_as_often_as_in_speech():
    """From weights and frames that are always the same."""
    config = random_decoder.decoder_only(models.config(None, vocab_size=500))
    bias = random_decoder.find_blank_bias(config, 250)
    twins = [random_decoder.make_model(config, bias) for _ in range(2)]
    assert jax.tree.all(jax.tree.map(np.array_equal, *twins))
    frames = random_decoder.make_frames(config, 4, 250)
    np.testing.assert_array_equal(frames[:2], random_decoder.make_frames(config, 2, 250))
    result = greedy_decode(twins[0], frames, np.full(4, 250, np.int32), max_symbols=10)
    rate = result.num_labels.sum() / 80
    assert rate == pytest.approx(random_decoder.LABELS_PER_SECOND, rel=0.1)
