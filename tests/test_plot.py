"""The decoder's steps are what the decoder did; drawings hold what they should."""

import matplotlib

matplotlib.use("Agg")

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
from flax import nnx

import tdt_jax as tdt
from tdt_jax import plot
from tdt_jax.inference.transcript import Word
from tdt_jax.losses.lattice import arc_posteriors


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def random_transducer(durations, seed):
    config = tdt.ModelConfig(
        vocab_size=5,
        durations=durations,
        encoder=tdt.EncoderConfig(width=8, num_layers=1, num_heads=2, subsampling_channels=2),
        predictor=tdt.PredictorConfig(width=8),
        joint=tdt.JointConfig(width=16),
    )
    return tdt.Transducer(config, rngs=nnx.Rngs(seed))


@pytest.mark.parametrize("durations", [(0, 1, 2, 3, 4), (1, 3), (0, 4), None])
@pytest.mark.parametrize("seed", range(3))
def test_visits_are_the_decoders_steps(durations, seed):
    model = random_transducer(durations, seed)
    frames = 3 * jax.random.normal(jax.random.key(seed), (1, 30, 8))
    found = tdt.greedy_decode(model, frames, jnp.array([30]), max_symbols=3)
    count = int(found.num_labels[0])
    states = model.predictor(found.labels[:, :count])
    tokens, lengths = model.joint(frames, states)
    path = plot.visits(
        tokens[0], None if durations is None else lengths[0], durations, max_symbols=3
    )
    assert len(path) == found.num_steps[0]
    assert path[-1].frame + path[-1].duration >= 30
    emitted = [visit for visit in path if visit.token != 5]
    assert [visit.position for visit in emitted] == list(range(count))
    assert [visit.token for visit in emitted] == found.labels[0, :count].tolist()
    assert [visit.frame for visit in emitted] == found.times[0, :count].tolist()
    if count > 0:
        with pytest.raises(ValueError, match=f"logits are of {count - 1} labels"):
            plot.visits(tokens[0, :, :-1], lengths[0, :, :-1] if durations else None, durations,
                        max_symbols=3)  # fmt: skip


def test_lattice_draws_every_probable_arc():
    blank, label = jnp.zeros((4, 3, 2)), jnp.zeros((4, 2, 3))
    _, *posteriors = arc_posteriors(blank, label, 4, 2, (1, 2), (0, 1, 2))
    path = [plot.Visit(0, 0, 0, 1), plot.Visit(1, 1, 1, 1), plot.Visit(2, 2, 9, 2)]
    options = dict(blank_durations=(1, 2), label_durations=(0, 1, 2), texts=["one", "two"])
    axes = plot.lattice(*posteriors, **options, path=path)
    probable = [int((np.asarray(arcs) > plot.FAINTEST).sum()) for arcs in posteriors]
    assert [len(drawn.get_segments()) for drawn in axes.collections[1:3]] == probable
    assert [text.get_text() for text in axes.get_yticklabels()] == ["(start)", "one", "two"]
    assert axes.lines[-1].get_xydata().tolist() == [[0, 0], [1, 1], [2, 2], [4, 2]]
    axes.figure.canvas.draw()


def test_jumps_over_features():
    config = tdt.ModelConfig(vocab_size=2)
    path = [plot.Visit(0, 0, 2, 4), plot.Visit(4, 0, 1, 0), plot.Visit(4, 1, 0, 3)]
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
