"""Greedy decoding: paths written by hand, and a reference that decodes one utterance in numpy."""

import collections
import functools

import jax
import jax.numpy as jnp
import models
import numpy as np
import pytest
from compilations import num_compilations
from table_model import BLANK, FRAMES, VOCAB, table

import tdt_jax as tdt


def decode(paths, num_frames, durations=(0, 1, 2, 4), max_symbols=3):
    """The hypothesis as lists of (label, time, duration), and the number of steps, per row."""
    model = table(paths, durations)
    rows, times = np.meshgrid(np.arange(len(paths)), np.arange(FRAMES), indexing="ij")
    frames = np.stack([rows, times], axis=-1).astype(np.float32)
    hypothesis = tdt.greedy_decode(
        model, frames, np.array(num_frames, np.int32), max_symbols=max_symbols
    )
    return as_lists(hypothesis), hypothesis


def as_lists(hypothesis):
    hypothesis = jax.device_get(hypothesis)
    columns = np.stack([hypothesis.labels, hypothesis.times, hypothesis.durations])
    return [
        ([tuple(map(int, columns[:, b, i])) for i in range(n)], int(hypothesis.num_steps[b]))
        for b, n in enumerate(hypothesis.num_labels)
    ]


def test_hand_written_paths():
    """Ragged rows that end at their own time."""
    paths = [
        # A label jumps by its duration; blank as well; the last label jumps past the end.
        {(0, 0): (3, 2), (2, 1): (BLANK, 4), (6, 1): (5, 4)},
        # Blank with duration 0 moves by 1, and leaves the predictor where it is.
        {(0, 0): (BLANK, 0), (1, 0): (1, 1), (2, 1): (BLANK, 0), (3, 1): (BLANK, 1)},
        # Three labels at one frame: the third, having a duration, moves by its own.
        {(0, 0): (1, 0), (0, 1): (2, 0), (0, 2): (4, 2), (2, 3): (BLANK, 4)},
        # Three labels at one frame that would stay: forced on by 1. The count starts again, also
        # after two labels and a blank.
        {
            (0, 0): (1, 0), (0, 1): (1, 0), (0, 2): (2, 0),
            (1, 3): (4, 0), (1, 4): (5, 0), (1, 5): (BLANK, 1),
            (2, 5): (6, 0), (2, 6): (7, 0), (2, 7): (7, 0), (3, 8): (BLANK, 2),
        },
        # Nothing but blanks.
        {(0, 0): (BLANK, 4), (4, 0): (BLANK, 4)},
        # No frames: no step.
        {},
    ]  # fmt: skip
    decoded, hypothesis = decode(paths, [8, 4, 3, 5, 8, 0])
    assert decoded == [
        ([(3, 0, 2), (5, 6, 4)], 3),
        ([(1, 1, 1)], 4),
        ([(1, 0, 0), (2, 0, 0), (4, 0, 2)], 4),
        (
            [
                (1, 0, 0), (1, 0, 0), (2, 0, 0),
                (4, 1, 0), (5, 1, 0),
                (6, 2, 0), (7, 2, 0), (7, 2, 0),
            ],
            10,
        ),
        ([], 2),
        ([], 0),
    ]  # fmt: skip
    assert hypothesis.labels.shape == (6, FRAMES * 3)
    for field in hypothesis._fields:
        expected = jnp.float32 if field in ("scores", "entropies") else jnp.int32
        assert getattr(hypothesis, field).dtype == expected


def test_one_symbol_a_frame():
    paths = [{(0, 0): (1, 0), (1, 1): (2, 0), (2, 2): (3, 2), (4, 3): (BLANK, 0)}] * 6
    decoded, _ = decode(paths, [5, 4, 3, 2, 1, 0], max_symbols=1)
    assert decoded == [
        ([(1, 0, 0), (2, 1, 0), (3, 2, 2)], 4),
        ([(1, 0, 0), (2, 1, 0), (3, 2, 2)], 3),
        ([(1, 0, 0), (2, 1, 0), (3, 2, 2)], 3),
        ([(1, 0, 0), (2, 1, 0)], 2),
        ([(1, 0, 0)], 1),
        ([], 0),
    ]


def test_durations_above_zero_need_room_for_a_label_a_frame():
    every_frame = {(t, t): (t % 3, 1) for t in range(FRAMES)}
    decoded, hypothesis = decode([every_frame] * 6, [8, 7, 3, 1, 1, 0], durations=(1, 2))
    assert hypothesis.labels.shape == (6, FRAMES)
    assert decoded[0] == ([(t % 3, t, 1) for t in range(FRAMES)], 8)
    assert [len(labels) for labels, _ in decoded] == [8, 7, 3, 1, 1, 0]


def test_rnnt_takes_frames_plus_labels_steps():
    """Labels stay, blanks move by 1; durations are 0."""
    emitting = {
        (0, 0): (BLANK, 1), (1, 0): (2, 0), (1, 1): (3, 0), (1, 2): (BLANK, 1),
        (2, 2): (BLANK, 1), (3, 2): (4, 0), (3, 3): (BLANK, 1),
    }  # fmt: skip
    silent = {(t, 0): (BLANK, 1) for t in range(FRAMES)}
    decoded, _ = decode([emitting, silent] * 3, [4, 8, 3, 5, 0, 1], durations=None)
    labels = [(2, 1, 0), (3, 1, 0), (4, 3, 0)]
    assert decoded == [(labels, 7), ([], 8), (labels[:2], 5), ([], 5), ([], 0), ([], 1)]


# A random transducer

TDT = (0, 1, 2, 3, 4)
DURATIONS = [TDT, None, pytest.param((1, 2), marks=pytest.mark.slow)]
SIZES = np.random.default_rng(7).integers(0, 15, size=20).astype(np.int32)
MAX_SYMBOLS = 3


@functools.cache
def transducer(durations):
    return models.emitting(models.config(durations))


def frames(size=15):
    """Random frames of 20 utterances, garbage beyond their lengths."""
    values = np.random.default_rng(5).normal(size=(20, 15, 16)).astype(np.float32)
    values = np.pad(values, ((0, 0), (0, size - 15), (0, 0)))
    values[np.arange(size) >= SIZES[:, None]] = 50.0
    return values


def linear(layer, x):
    return x @ np.asarray(layer.kernel[...], np.float64) + np.asarray(layer.bias[...])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def greedy(model, frames, max_symbols):
    """One utterance, in numpy: ([(label, time, duration)], steps), scores and what occurred."""
    model, config, seen = models.numpy_model(model), model.config, collections.Counter()
    embedding = np.asarray(model.predictor.embedding[...])

    def predict(label, state):
        x, new = np.zeros(embedding.shape[1]) if label is None else embedding[label], []
        for layer, (hidden, cell) in zip(model.predictor.layers, state, strict=True):
            gates = linear(layer.input, x) + linear(layer.recurrent, hidden)
            i, f, g, o = np.split(gates, 4)
            cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
            x = sigmoid(o) * np.tanh(cell)
            new.append((x, cell))
        return x, new

    zeros = np.zeros(embedding.shape[1])
    output, state = predict(None, [(zeros, zeros)] * len(model.predictor.layers))
    emitted, scores, time, here, steps = [], [], 0, 0, 0
    while time < len(frames):
        steps += 1
        hidden = linear(model.joint.frame_projection, frames[time])
        hidden = np.maximum(hidden + linear(model.joint.state_projection, output), 0)
        logits = linear(model.joint.token_head, hidden)
        token = int(np.argmax(logits))
        is_blank = token == config.blank
        if config.durations is None:
            duration = 1 if is_blank else 0
        else:
            duration = config.durations[np.argmax(linear(model.joint.duration_head, hidden))]
        seen["blank" if is_blank else "label"] += 1
        seen[is_blank, duration] += 1
        if not is_blank:
            emitted.append((token, time, duration))
            scores.append(logits[token] - np.log(np.sum(np.exp(logits))))
            output, state = predict(token, state)
            here += 1
        if duration > 0:
            time, here = time + duration, 0
        elif is_blank or here == max_symbols:
            seen["forced"] += not is_blank
            time, here = time + 1, 0
    return (emitted, steps), scores, seen


@pytest.mark.parametrize("durations", DURATIONS)
def test_decoding_equals_the_reference(durations):
    model = transducer(durations)
    expected = [
        greedy(model, x[:size], MAX_SYMBOLS) for x, size in zip(frames(), SIZES, strict=True)
    ]
    seen = sum((counter for _, _, counter in expected), collections.Counter())
    if durations is None:
        cases = ["blank", "label"]
    else:
        cases = [(is_blank, d) for is_blank in (True, False) for d in durations]
    cases += ["forced"] * (durations is None or 0 in durations)
    assert all(seen[case] >= 2 for case in cases), seen  # or it would test little

    hypothesis = tdt.greedy_decode(model, frames(), SIZES, max_symbols=MAX_SYMBOLS)
    hypothesis = jax.device_get(hypothesis)
    assert as_lists(hypothesis) == [path for path, _, _ in expected]
    for b, (_, scores, _) in enumerate(expected):
        np.testing.assert_allclose(hypothesis.scores[b, : len(scores)], scores, atol=1e-4)
        assert not np.any(hypothesis.labels[b, len(scores) :])
    if durations is None:  # a forced step is a frame that no blank was needed for
        forced = [counter["forced"] for _, _, counter in expected]
        np.testing.assert_array_equal(hypothesis.num_steps, SIZES - forced + hypothesis.num_labels)


def test_padding_and_the_rest_of_the_batch_have_no_influence():
    model = transducer(TDT)
    plain = as_lists(tdt.greedy_decode(model, frames(), SIZES, max_symbols=MAX_SYMBOLS))
    garbled = np.where(frames() == 50.0, np.float32(np.nan), frames())
    assert plain == as_lists(tdt.greedy_decode(model, garbled, SIZES, max_symbols=MAX_SYMBOLS))
    order = np.random.default_rng(0).permutation(20)
    shuffled = tdt.greedy_decode(model, frames()[order], SIZES[order], max_symbols=MAX_SYMBOLS)
    assert [plain[b] for b in order] == as_lists(shuffled)
    alone = tdt.greedy_decode(model, frames(19)[4:5], SIZES[4:5], max_symbols=MAX_SYMBOLS)
    assert plain[4:5] == as_lists(alone) and plain[4][0]


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("durations", "window"),
    [(TDT, 5), (None, 1), slow(TDT, 2), slow(None, 2), slow(None, 5), slow((1, 2), 5)],
)
def test_the_window_changes_nothing_but_speed(durations, window):
    """The default is 1 for a TDT and 4 for an RNN-T."""
    model = transducer(durations)
    default, other = (
        jax.device_get(
            tdt.greedy_decode(model, frames(), SIZES, max_symbols=MAX_SYMBOLS, window=each)
        )
        for each in (None, window)
    )
    assert default.num_labels.sum() > 50
    for field in ("labels", "num_labels", "times", "durations", "num_steps"):
        np.testing.assert_array_equal(getattr(default, field), getattr(other, field), field)
    np.testing.assert_allclose(default.scores, other.scores, atol=1e-5)
    np.testing.assert_allclose(default.entropies, other.entropies, atol=1e-5)


def test_hand_written_paths_in_a_window():
    """Blanks inside a window, a blank that jumps past it, labels at a window's end and twice."""
    path = {
        (0, 0): (BLANK, 1), (1, 0): (BLANK, 2), (3, 0): (4, 0), (3, 1): (5, 0), (3, 2): (BLANK, 4),
        (7, 2): (6, 1),
    }  # fmt: skip
    model = table([path] * 6, (0, 1, 2, 4))
    places = np.stack(np.meshgrid(np.arange(6), np.arange(FRAMES), indexing="ij"), axis=-1)
    options = dict(max_symbols=3, window=4)
    sizes = np.array([8, 7, 4, 3, 1, 0], np.int32)
    hypothesis = tdt.greedy_decode(model, places.astype(np.float32), sizes, **options)
    labels = [(4, 3, 0), (5, 3, 0), (6, 7, 1)]
    assert as_lists(hypothesis) == [
        (labels, 6), (labels[:2], 5), (labels[:2], 5), ([], 2), ([], 1), ([], 0)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("durations", "size"),
    [(TDT, 1), (None, 4), slow(TDT, 4), slow(None, 1), slow((1, 2), 1), slow((1, 2), 4)],
)
def test_chunk_by_chunk_is_the_whole(durations, size):
    """Predictor and jumps are carried over the borders, whatever the rows' lengths."""
    model = transducer(durations)
    options = dict(max_symbols=MAX_SYMBOLS)
    whole = jax.device_get(tdt.greedy_decode(model, frames(), SIZES, **options))
    state = jax.jit(tdt.start_decoding, static_argnums=1)(model, 20)
    emitted, num_steps = [[] for _ in SIZES], 0
    for start in range(0, 15, size):
        chunk = frames(-(-15 // size) * size)[:, start : start + size]
        sizes = np.clip(SIZES - start, 0, size).astype(np.int32)
        part, state = tdt.decode_chunk(model, chunk, sizes, state, **options)
        part = jax.device_get(part)
        num_steps = num_steps + part.num_steps
        for row, count in enumerate(part.num_labels):
            columns = part.labels[row], part.times[row] + start, part.scores[row]
            emitted[row] += zip(*(column[:count] for column in columns), strict=True)
    np.testing.assert_array_equal(num_steps, whole.num_steps)
    for row, count in enumerate(whole.num_labels):
        labels, times, scores = zip(*emitted[row], strict=True) if emitted[row] else ((), (), ())
        np.testing.assert_array_equal(labels, whole.labels[row, :count])
        np.testing.assert_array_equal(times, whole.times[row, :count])
        np.testing.assert_allclose(scores, whole.scores[row, :count], atol=1e-5)


def test_entropy_is_of_the_token_head():
    """A table's logits are 5 for the token and 0 for the others, whatever the path."""
    _, hypothesis = decode([{(0, 0): (3, 2), (2, 1): (BLANK, 4), (6, 1): (5, 4)}] * 6, [8] * 6)
    hypothesis = jax.device_get(hypothesis)
    probabilities = np.exp([5.0] + [0.0] * VOCAB) / (np.exp(5) + VOCAB)
    entropy = -np.sum(probabilities * np.log(probabilities))
    np.testing.assert_allclose(hypothesis.entropies[:, :2], entropy, rtol=1e-5)
    np.testing.assert_allclose(hypothesis.scores[:, :2], np.log(probabilities[0]), rtol=1e-5)
    assert not np.any(hypothesis.entropies[:, 2:])


def test_many_symbols_are_the_default():
    """Ten labels at a frame that never moves on by itself, and then the next frame."""
    paths = [{(0, u): (2, 0) for u in range(10)} | {(1, 10): (BLANK, 4)}] * 6
    model = table(paths, (0, 1, 2, 4))
    places = np.stack(np.meshgrid(np.arange(6), np.arange(FRAMES), indexing="ij"), axis=-1)
    hypothesis = tdt.greedy_decode(model, places.astype(np.float32), np.full(6, 5, np.int32))
    assert as_lists(hypothesis) == [([(2, 0, 0)] * 10, 11)] * 6


def test_not_a_number_ends():
    """A model that has diverged decodes to something, in finite time."""
    model = jax.tree.map(
        lambda leaf: leaf * np.float32(np.nan), models.numpy_model(transducer(TDT))
    )
    hypothesis = tdt.greedy_decode(model, frames(), SIZES, max_symbols=MAX_SYMBOLS)
    assert np.all(np.asarray(hypothesis.num_steps) <= SIZES * MAX_SYMBOLS)


def test_greedy_decode_compiles_once_per_shape():
    decode = functools.partial(num_compilations, tdt.greedy_decode)
    one = models.numpy_model(transducer(TDT))
    other = jax.tree.map(lambda leaf: leaf * np.float32(0.5), one)
    assert decode(one, frames()[:3], SIZES[:3]) == 1
    assert decode(other, frames()[3:6], SIZES[3:6]) == 0
    assert decode(one, jnp.asarray(frames()[:3]), jnp.asarray(SIZES[:3])) == 0
    assert decode(one, frames()[:2], SIZES[:2], max_symbols=4) == 1


@pytest.mark.parametrize(
    ("shape", "sizes", "max_symbols", "message"),
    [
        ((2, 5, 16), (2,), 0, "max_symbols and window must be >= 1, got max_symbols 0"),
        ((5, 16), (5,), 1, r"\[B, T > 0, D\].*\(5, 16\), \(5,\) and \(5,\)"),
        ((2, 0, 16), (2,), 1, r"\[B, T > 0, D\].*\(2, 0, 16\)"),
        ((2, 5, 16), (3,), 1, r"num_frames \[B\].*\(2, 5, 16\), \(3,\) and \(2,\)"),
    ],
)
def test_bad_input_is_named(shape, sizes, max_symbols, message):
    model = transducer(TDT)
    with pytest.raises(ValueError, match=message):
        tdt.greedy_decode(
            model, np.zeros(shape, np.float32), np.ones(sizes, np.int32), max_symbols=max_symbols
        )
