"""The loss of every pair is that of the training step, whatever the batch."""

import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from models import encoder_config, make_recogniser, noise

import tdt_jax as tdt
from tdt_jax.data.manifest import Entry
from tdt_jax.models.transducer import encode
from tdt_jax.training import pair_losses as subject
from tdt_jax.training.pair_losses import pair_losses


@pytest.fixture
def entries(tmp_path):
    items = []
    for number, (seconds, text) in enumerate(
        ((1.2, "one"), (1.9, "two three"), (2.6, "six"), (0.5, "ten"))
    ):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, noise(seconds, number), 16000, subtype="FLOAT")
        items.append(Entry(path.name, path, seconds, text))
    return items


def test_they_are_what_they_were(entries):
    """The numbers are those of `tdt.transducer_loss` for each alone."""
    recogniser = make_recogniser(encoder=encoder_config(num_layers=1))
    losses = pair_losses(recogniser, entries[:2], batch_seconds=4.0)
    np.testing.assert_allclose(losses, [25.586882, 16.689018], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("durations", [(0, 1, 2), None])
def test_they_are_the_losses_of_each_alone(entries, durations):
    recogniser = make_recogniser(durations=durations)
    model = recogniser.model
    expected = []
    for item in entries:
        samples = soundfile.read(item.path, dtype="float32")[0][None]
        features = tdt.log_mel(samples, jnp.array([samples.shape[1]]), model.config.features)
        frames, num_frames = encode(model, *features)
        labels = jnp.array([recogniser.tokenizer.encode(item.text)])
        loss = tdt.transducer_loss(
            model.joint, frames, model.predictor(labels), labels, num_frames,
            jnp.array([labels.shape[1]]), durations=durations,
        )  # fmt: skip
        expected.append(float(loss[0]) / labels.shape[1])
    done = []
    actual = pair_losses(recogniser, entries, batch_seconds=4.0, progress=done.append)
    np.testing.assert_allclose(actual, expected, rtol=1e-4)
    assert sum(done) == pytest.approx(sum(item.seconds for item in entries))


def test_every_utterance_has_the_loss_of_its_own_row(entries, monkeypatch):
    """Whatever order they are given in; a batch of 4 s has rows of one length."""
    shapes = []

    def losses(model, samples, num_samples, labels, num_labels):
        shapes.append(samples.shape)
        return num_samples * num_labels

    monkeypatch.setattr(subject, "_losses", losses)
    items, done = entries[::-1], []
    found = pair_losses(make_recogniser(), items, batch_seconds=4.0, progress=done.append)
    np.testing.assert_allclose(found, [round(16000 * item.seconds) for item in items])
    assert [rows for rows, _ in shapes] == [2, 2, 1]  # two batches up to 2 s, one up to 4 s
    assert sum(done) == pytest.approx(6.2)


def test_what_has_no_loss(entries, monkeypatch):
    recogniser = make_recogniser()
    monkeypatch.setattr(
        subject, "_losses", lambda model, samples, *rest: jnp.full(len(samples), 1e30)
    )
    entries[0].path.write_bytes(b"not audio")
    items = [
        entries[0],
        entries[1]._replace(text="?"),
        entries[1]._replace(text=""),
        entries[1]._replace(seconds=0.0),
        entries[1]._replace(seconds=100.0),
        entries[1],
    ]
    losses = pair_losses(recogniser, items)
    assert np.isnan(losses[:5]).all() and losses[5] == np.inf
