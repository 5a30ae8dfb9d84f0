"""The decoder's benchmarks: silence as documented, steps and bytes counted right, figures shown."""

import json

import matplotlib

matplotlib.use("Agg")

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import models
import numpy as np
import pytest

import tdt_jax as tdt
from tdt_jax import plot
from tdt_jax import tokenizer as tokenizers
from tdt_jax.audio.reading import AudioError
from tdt_jax.benchmarks import decoder, encoder, random_decoder, silence
from tdt_jax.benchmarks.decoder import Decoded, Peer
from tdt_jax.benchmarks.silence import Row, Side
from tdt_jax.config import Bucket
from tdt_jax.data.manifest import Entry
from tdt_jax.data.utterance import Utterance, collate
from tdt_jax.decoding.greedy import greedy_decode
from tdt_jax.inference.recognition import decode_samples

RATE = 16000


def speech(seconds, seed=0, quiet=(0.4, 0.5)):
    """Loud noise with a soft 0.2 s, at these shares of the whole."""
    rng = np.random.default_rng(seed)
    samples = rng.normal(size=round(seconds * RATE)).astype(np.float32)
    start, stop = (round(share * len(samples)) for share in quiet)
    samples[start:stop] *= 0.01
    return samples


# A TDT beside an RNN-T


@pytest.fixture(scope="module")
def recognisers():
    """Random, with heads that say a few things."""
    tokenizer, found = tokenizers.train_characters(["ab def"]), []
    for durations, seed, blank_bias in (((0, 1, 2), 1, 4), (None, 0, 12)):
        config = models.config(durations, encoder=models.encoder_config(num_layers=1))
        model = models.transducer(config, seed)
        head = model.joint.token_head
        head.kernel[...] = 4 * head.kernel[...]
        head.bias[...] = head.bias[...].at[-1].add(blank_bias)
        found.append(tdt.Recogniser(model, tokenizer))
    return tuple(found)


def hears(recogniser, utterances):
    """The hypotheses of a batch."""
    batch = collate(utterances, None, Bucket(2.56, 1, 3), sample_rate=16000)
    return jax.device_get(decode_samples(recogniser.model, batch.samples, batch.num_samples))


@pytest.fixture(scope="module")
def utterances(recognisers):
    """Three, with the words that the TDT hears in them."""
    silent = [Utterance(str(i), speech(0.6 + 0.3 * i, i), "") for i in range(3)]
    heard, decode = hears(recognisers[0], silent), recognisers[0].tokenizer.decode
    texts = (decode(x[:n]) for x, n in zip(heard.labels, heard.num_labels, strict=True))
    return [each._replace(text=text) for each, text in zip(silent, texts, strict=True)]


@pytest.fixture(scope="module")
def compared(utterances, recognisers):
    options = dict(shares=(0.0, 0.5), repeats=2, batch_size=3)
    return silence.compare(*recognisers, utterances, **options)


def test_steps_and_errors_are_those_of_the_decoder(compared, recognisers, utterances):
    plain, half = compared
    seconds = [len(utterance.samples) / RATE for utterance in utterances]
    assert (plain.share, plain.utterances, plain.audio_seconds) == (0.0, 3, sum(seconds))
    assert (half.share, half.audio_seconds) == (0.5, 2 * sum(seconds))
    heard = [hears(each, utterances) for each in recognisers]
    steps = [int(each.num_steps.sum()) for each in heard]
    assert plain.tdt.steps_per_second == pytest.approx(steps[0] / sum(seconds))
    assert plain.rnnt.steps_per_second == pytest.approx(steps[1] / sum(seconds))
    frames = sum(-(-(len(u.samples) // 160) // 8) for u in utterances)
    assert steps[1] == frames + heard[1].num_labels.sum() > steps[0]
    assert plain.ratios["steps"] == pytest.approx(steps[1] / steps[0])
    assert plain.tdt.word_error_rate == 0 and plain.rnnt.word_error_rate > 0
    assert min(*plain.tdt[2:], *plain.rnnt[2:], *half.rnnt[2:5]) > 0
    assert half.rnnt.first_run_seconds == 0  # no new shape


def test_figures_but_times_do_not_depend_on_the_batch(compared, recognisers, utterances):
    (alone,) = silence.compare(*recognisers, utterances, shares=[0.5], repeats=1)
    for side in ("tdt", "rnnt"):
        assert getattr(alone, side)[:2] == pytest.approx(getattr(compared[1], side)[:2])


def test_batches_have_few_shapes():
    """2.56 s and twice and four times as much; every utterance is in one of them."""
    items = [Utterance(str(i), speech(seconds), "") for i, seconds in enumerate((1.0, 1.2, 2.0, 4))]
    lengths = {i: len(item.samples) for i, item in enumerate(items)}
    batches = list(silence._batches(items, lengths, 0.5, 3, RATE))
    assert [batch.samples.shape for batch in batches] == [(3, 40960), (3, 81920), (3, 163840)]
    assert [batch.ids for batch in batches] == [("0", "1", ""), ("2", "", ""), ("3", "", "")]
    assert batches[0].num_samples.tolist() == [32000, 38400, 0]


def row(share, tdt, rnnt):
    return Row(share, 7, 60.0, 1, 3, "abacus", tdt, rnnt)


ROWS = [
    row(0.0, Side(0.01, 4.0, 1.5, 0.5, 8.0, 2.0), Side(0.02, 12.0, 3.0, 0.5, 10.0, 3.0)),
    row(0.5, Side(0.01, 3.0, 1.5, 0.5, 8.0, 0.0), Side(0.02, 12.0, 4.5, 0.5, 12.0, 0.0)),
]


def test_the_table_and_the_objects_hold_the_ratios():
    assert ROWS[0].ratios == dict(steps=3.0, loop=2.5, decoder=2.0, whole=1.25)
    text = silence.describe(ROWS)
    assert "7 utterances, batch 1, on abacus" in text and "took 5.0 s" in text
    assert "3.00 x     2.50 x     2.00 x     1.25 x" in text and "50 %" in text
    objects = json.loads(json.dumps(silence.to_json(ROWS)))
    assert objects[1]["ratios"]["steps"] == 4.0 and objects[1]["rnnt"]["whole_seconds"] == 12.0


def test_the_plot_shows_steps_and_ratios():
    left, right = silence.plot(ROWS)
    assert [line.get_ydata().tolist() for line in left.lines] == [[12, 12], [4, 3]]
    assert left.lines[0].get_xdata().tolist() == [0, 50]
    drawn = [line.get_ydata() for line in right.lines[1:]]
    assert [list(each) for each in drawn] == [[3, 4], [2.5, 4], [2, 3], [1.25, 1.5]]
    assert "7 utterances, 1 at a time, on abacus" in left.figure.get_suptitle()
    left.figure.canvas.draw()
    plt.close(left.figure)
    plt.close(silence.plot(ROWS[:1])[0].figure)


def test_what_cannot_be_compared_is_named(recognisers, tmp_path):
    tdt_model, rnnt = recognisers
    utterances = [Utterance("a", speech(1.0), "a")]
    for pair, options, message in (
        ((rnnt, tdt_model), {}, "first .* TDT and the second an RNN-T, got a RNN-T and a TDT"),
        ((tdt_model, tdt_model), {}, "got a TDT and a TDT"),
        (recognisers, {"shares": (0.5, 1.0)}, r"below 1, got \(0.5, 1.0\)"),
        (recognisers, {"batch_size": 0}, "batch_size 0, repeats 3"),
    ):
        with pytest.raises(ValueError, match=message):
            silence.compare(*pair, utterances, **options)
    missing, failed = [Entry("x.wav", tmp_path / "x.wav", 1.0, "a")], {}
    with pytest.raises(AudioError, match="no audio file"):
        silence.compare(*recognisers, missing)
    with pytest.raises(ValueError, match="none of 1 utterances"):
        silence.compare(*recognisers, missing, failed=failed)
    assert "no audio file" in failed["x.wav"]


# The decoder at Parakeet's size


def test_the_bytes_of_a_turn():
    """Two LSTMs of two 8 x 32 matrices and biases, 8 x 12; 12 x 7 tokens and 12 x 3 durations."""
    counted = random_decoder.weights(random_decoder.make_model(models.config(), 0.0))
    assert counted.predictor == 4 * (2 * 2 * (8 * 32 + 32) + 8 * 12 + 12)
    assert counted.heads == 4 * (12 * 7 + 7 + 12 * 3 + 3)
    rnnt = random_decoder.weights(random_decoder.make_model(models.config(None), 0.0))
    assert rnnt == (4 * (12 * 7 + 7), counted.predictor)


@pytest.mark.parametrize("durations", [(0, 1, 2), None])
def test_turns_with_a_label_are_those_of_the_decoders_steps(durations):
    config = models.config(durations)
    model = random_decoder.make_model(config, 8.0)
    frames = jnp.asarray(random_decoder.make_frames(config, 3, 30))
    found = greedy_decode(model, frames, jnp.full(3, 30), max_symbols=config.max_symbols)
    emits = np.zeros((3, int(found.num_steps.max())), bool)
    counts = found.num_labels.tolist()
    logits = model.joint(frames, model.predictor(found.labels[:, : max(counts)]))
    for i, count in enumerate(counts):
        own = (None if x is None else x[i, :, : count + 1] for x in jax.device_get(logits))
        path = plot.decoder_steps(*own, durations, max_symbols=config.max_symbols)
        emits[i, : len(path)] = [visit.token != config.blank for visit in path]
    counted = decoder.count_label_turns(model, frames)
    assert counted == emits.any(axis=0).sum() and 0 < counted < emits.shape[1]


def test_random_decoders_are_always_the_same_and_say_as_much_as_speech():
    config = random_decoder.decoder_only(models.config(None, vocab_size=500))
    bias = random_decoder.find_blank_bias(config, 250)
    twins = [random_decoder.make_model(config, bias) for _ in range(2)]
    assert jax.tree.all(jax.tree.map(np.array_equal, *twins))
    frames = random_decoder.make_frames(config, 4, 250)
    np.testing.assert_array_equal(frames[:2], random_decoder.make_frames(config, 2, 250))
    found = greedy_decode(twins[0], frames, np.full(4, 250), max_symbols=config.max_symbols)
    assert found.num_labels.sum() / 80 == pytest.approx(random_decoder.LABELS_PER_SECOND, rel=0.1)


def test_the_decoder_is_measured(monkeypatch):
    monkeypatch.setattr(decoder, "in_subprocess", lambda function, *args: function(*args))
    monkeypatch.setattr(decoder, "WINDOWS", (1, 3))
    monkeypatch.setitem(decoder.MODELS, "tiny", models.config())
    (text,) = decoder.decoder_report(["tiny"], batches=(2,), seconds=2.0, repeats=1)
    assert text.startswith("tiny: decoder of 2 s an utterance") and "batch 2: " in text
    assert "window 1 (default)" in text and "window 3 " in text
    assert "ms a turn" in text and "transformers" not in text


def test_the_table_sets_ours_beside_theirs_and_the_floor():
    """10 turns of 520 bytes and 6 of 5040 more: 35440 bytes, at most at 3544 bytes/s."""
    arrays = tuple(np.arange(3) for _ in range(3))
    ours = Decoded(10, 6, 6, 10, 3544.0, {1: 20.0, 2: 30.0}, [arrays], "abacus")
    slower = ours._replace(bandwidth=1000.0)
    theirs = Peer(40.0, [(*arrays[:2], np.zeros(3))], "5.0")
    text = decoder.describe(
        "x", models.config(), 25, [(1, ours, theirs), (1, slower, theirs._replace(found=[arrays]))]
    )
    assert text.count("floor 10.000 s") == 2 and "3.00 labels and 5.00 steps a second" in text
    assert "2.00 x floor  2000.00 ms a turn" in text and "3.00 x floor" in text
    assert "0.50 = ours / theirs; 0 of 1 alike; 5.0" in text and "; 1 of 1 alike" in text


def test_theirs_ends_with_the_frames():
    """Blank is 9: steps at frames 0, 2, 2, 3 and, after the end, 7."""
    labels, times, durations = random_decoder.cut(
        np.array([5, 4, 9, 3, 2, 0]), np.array([2, 0, 1, 4, 1]), blank=9, num_frames=6
    )
    assert (labels.tolist(), times.tolist(), durations.tolist()) == (
        [5, 4, 3],
        [0, 2, 3],
        [2, 0, 4],
    )
    ours = labels, times, np.zeros(3)
    assert decoder.alike(ours, (labels, times, durations), is_tdt=False)
    assert not decoder.alike(ours, (labels, times, durations), is_tdt=True)


def test_what_cannot_be_measured_is_named(monkeypatch):
    monkeypatch.setattr(encoder, "installed", lambda package: False)
    for arguments, message in (
        (dict(names=["huge"]), "no case 'huge'; there are 110m"),
        (dict(batches=(1, 0)), r"must be positive, got \(1, 0\), 5 and 60"),
        (dict(seconds=0), "must be positive"),
        (dict(peers=True), "needs torch and transformers"),
    ):
        with pytest.raises(ValueError, match=message):
            decoder.decoder_report(**arguments)
