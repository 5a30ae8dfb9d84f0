"""Samples to hypotheses: either decoder, and rows of a batch on several devices."""

import jax
import numpy as np
import pytest
from models import noise

import tdt_jax as tdt
from tdt_jax.advice.guide import make_guide
from tdt_jax.inference.advised import batch_advice
from tdt_jax.inference.recognition import decode_samples, decode_samples_on_mesh, devices_of
from tdt_jax.runtime import sharding

SIZE = round(2.56 * 16000)  # samples of a row, as most tests of this room have it


def batch(rows):
    samples = np.zeros((rows, SIZE), np.float32)
    for row in range(rows):
        samples[row, :16000] = noise(1.0, row)
    return samples, np.full(rows, 16000, np.int32)


def test_a_model_with_both_heads_decodes_with_either(recogniser):
    samples = batch(1)
    first, named, ctc = (
        jax.device_get(decode_samples(recogniser.model, *samples, decoder=decoder))
        for decoder in ("", "transducer", "ctc")
    )
    assert first.num_labels[0] > 5
    np.testing.assert_array_equal(first.labels, named.labels)
    frames = tdt.encode(recogniser.model, *tdt.log_mel(*samples))
    expected = jax.device_get(tdt.ctc_decode(recogniser.model, *frames))
    np.testing.assert_array_equal(ctc.labels, expected.labels)
    assert ctc.labels.shape != first.labels.shape


def test_a_decoder_that_the_model_does_not_have_is_an_error(recogniser):
    with pytest.raises(ValueError, match="no decoder 'beam' in this model; it has transducer and"):
        decode_samples(recogniser.model, *batch(1), decoder="beam")
    with pytest.raises(ValueError, match="there is no decoder 'beam' in this model"):
        tdt.transcribe(recogniser, noise(1.0), decoder="beam")


def test_several_devices_transcribe_as_one(recogniser):
    """Rows of a batch on devices of their own; batches that the recordings do not fill."""
    audio = [noise(seconds, seed) for seed, seconds in enumerate((1.0, 2.2, 2.4, 0.5, 4.0, 11.0))]
    mesh = sharding.make_mesh(jax.devices()[:4], fsdp=2)
    everywhere = jax.device_put(recogniser.model, sharding.replicated(mesh))
    assert (devices_of(recogniser.model), devices_of(everywhere)) == (1, 4)
    several = tdt.Recogniser(everywhere, recogniser.tokenizer)
    options = dict(batch_seconds=0.1)  # a row on each device
    one, all_four = (tdt.transcribe(each, audio, **options) for each in (recogniser, several))
    assert [each.text for each in one] == [each.text for each in all_four]
    assert [[(w.start, w.end) for w in each.words] for each in one] == [
        [(w.start, w.end) for w in each.words] for each in all_four
    ]
    hypothesis = decode_samples_on_mesh(everywhere, *batch(4))
    assert len(hypothesis.labels.sharding.device_set) == 4
    with pytest.raises(ValueError, match="a batch of 3 cannot be split among 4 devices"):
        decode_samples_on_mesh(everywhere, *batch(3))


@pytest.mark.slow
def test_rows_on_several_devices_have_their_own_advice(recogniser):
    mesh = sharding.make_mesh(jax.devices()[:2])
    everywhere = jax.device_put(recogniser.model, sharding.replicated(mesh))
    guides = [None, make_guide(recogniser.tokenizer, boost=[("seven eight", 8.0)])]
    samples, advice = batch(2), batch_advice(guides, recogniser.config.vocab_size)
    samples[0][1] = samples[0][0]
    one, two = (
        jax.device_get(decode_samples_on_mesh(model, *samples, advice=advice))
        for model in (recogniser.model, everywhere)
    )
    np.testing.assert_array_equal(one.labels, two.labels)
    assert not np.array_equal(two.labels[0], two.labels[1])
