"""The decoder's steps are those that it took; drawings hold what they should."""

import matplotlib

matplotlib.use("Agg")

import jax
import matplotlib.pyplot as plt
import models
import numpy as np
import pytest

import tdt_jax as tdt
from tdt_jax import plot
from tdt_jax.inference.transcript import Word


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def joint_logits(model, frames, labels):
    return model.joint(frames, model.predictor(labels))


@pytest.mark.parametrize(
    "durations",
    [
        (0, 1, 2, 3, 4),
        None,
        pytest.param((1, 3), marks=pytest.mark.slow),
        pytest.param((0, 4), marks=pytest.mark.slow),
    ],
)
def test_steps_are_those_of_the_decoder(durations):
    """On three utterances; and logits of too few labels are refused."""
    config = models.config(durations, models.encoder_config(width=8, num_layers=1))
    model, blank = models.transducer(config), config.blank
    frames = np.random.default_rng(0).normal(0, 3, (3, 30, 8)).astype(np.float32)
    options = dict(max_symbols=3)
    found = jax.device_get(tdt.greedy_decode(model, frames, np.full(3, 30), **options))
    assert found.num_labels.max() > 3
    labels = np.minimum(found.labels[:, : found.num_labels.max()], blank)
    logits = jax.device_get(jax.jit(joint_logits)(model, frames, labels))
    for row, count in enumerate(found.num_labels):
        tokens, lengths = (None if each is None else each[row, :, : count + 1] for each in logits)
        path = plot.decoder_steps(tokens, lengths, durations, **options)
        assert len(path) == found.num_steps[row]
        assert path[-1].frame + path[-1].duration >= 30
        emitted = [step for step in path if step.token != blank]
        assert [step.position for step in emitted] == list(range(count))
        assert [step.token for step in emitted] == found.labels[row, :count].tolist()
        assert [step.frame for step in emitted] == found.times[row, :count].tolist()
        if count > 0:
            lengths = None if durations is None else lengths[:, :-1]
            with pytest.raises(ValueError, match=f"logits are of {count - 1} labels"):
                plot.decoder_steps(tokens[:, :-1], lengths, durations, **options)


def test_lattice_draws_every_probable_arc():
    rng = np.random.default_rng(0)
    posteriors = [rng.random(shape) * (rng.random(shape) < 0.5) for shape in ((4, 3, 2), (4, 2, 3))]
    posteriors[0][0, 0, 0] = plot.FAINTEST / 2
    path = [
        plot.DecoderStep(0, 0, 0, 1),
        plot.DecoderStep(1, 1, 1, 1),
        plot.DecoderStep(2, 2, 9, 2),
    ]
    options = dict(blank_durations=(1, 2), label_durations=(0, 1, 2), texts=["one", "two"])
    axes = plot.lattice(*posteriors, **options, path=path)
    probable = [int((arcs > plot.FAINTEST).sum()) for arcs in posteriors]
    assert [len(drawn.get_segments()) for drawn in axes.collections[1:3]] == probable
    assert 0 < probable[0] < posteriors[0].size
    assert [text.get_text() for text in axes.get_yticklabels()] == ["(start)", "one", "two"]
    assert axes.lines[-1].get_xydata().tolist() == [[0, 0], [1, 1], [2, 2], [4, 2]]
    axes.figure.canvas.draw()


def test_jumps_over_features():
    config = tdt.ModelConfig(vocab_size=2)
    path = [
        plot.DecoderStep(0, 0, 2, 4),
        plot.DecoderStep(4, 0, 1, 0),
        plot.DecoderStep(4, 1, 0, 3),
    ]
    top, bottom = plot.jumps(np.random.default_rng(0).random((50, 8)), path, ["▁yes", "▁"], config)
    assert [text.get_text() for text in top.texts] == ["▁", "yes"]
    assert top.get_title("right") == "3 steps on 7 frames"
    assert bottom.get_images()[0].get_extent() == [0, 0.5, -0.5, 7.5]
    top.figure.canvas.draw()


def test_words_over_features():
    axes = plot.over_time(np.eye(20), seconds=0.1, label="channel")
    plot.words([Word("yes", 0.5, 1.0, 0.9, 0.9)], axes=axes)
    assert axes.texts[0].get_text() == "yes" and axes.texts[0].get_position()[0] == 0.75
    assert axes.get_images()[0].get_extent() == [0, 2.0, -0.5, 19.5]
    axes.figure.canvas.draw()
