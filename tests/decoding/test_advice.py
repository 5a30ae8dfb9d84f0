"""Advice: what automata weigh, and what a decoder makes of it."""

import functools

import jax
import models
import numpy as np
import pytest
from compilations import num_compilations
from graphs import step

import tdt_jax as tdt
from tdt_jax.decoding.advice import best_token
from tdt_jax.decoding.automaton import FEW_ROWS, WIDTHS, Graph, automaton, stack
from tdt_jax.runtime import backend

TDT = (0, 1, 2, 3, 4)
NONE, FREE = (0.0, 0.0), (-np.inf, np.inf)  # bounds of a lift


def random_graph(rng, num_states=30, num_labels=6, lift=FREE, scale=1.0):
    """Every third state has a row; the others back off once or twice, some with no arc."""
    states = np.arange(num_states)
    counts = np.where(states % 3, rng.integers(0, num_labels, num_states), 0)
    arcs = [rng.choice(num_labels, count, replace=False) for count in counts]
    num_arcs = counts.sum()
    return Graph(
        first=np.concatenate([[0], np.cumsum(counts)]),
        labels=np.concatenate(arcs),
        weights=scale * rng.normal(size=num_arcs),
        targets=rng.integers(0, num_states, num_arcs),
        backoff=np.maximum(states - 1, 0),
        backoff_weights=scale * rng.normal(size=(num_states, 2)),
        rows={
            int(s): (scale * rng.normal(size=num_labels), rng.integers(0, num_states, num_labels))
            for s in states[::3]
        },
        classes=rng.integers(0, 2, num_labels),
        start=int(rng.integers(num_states)),
        lift=lift,
    )  # fmt: skip


def advice(graphs, rows):
    """Advice of two automata: each row follows its own graph, twice."""
    stacked = stack([automaton(graph) for graph in graphs])
    chosen = np.array(rows, np.int32)
    return tdt.Advice((stacked, stacked), (chosen, chosen[::-1].copy()))


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_weights_are_those_of_the_graph(platform, monkeypatch):
    """Arcs before back-offs before rows, for all labels and both automata together."""
    monkeypatch.setattr(backend, "current", lambda: platform)
    rng = np.random.default_rng(0)
    graphs = [random_graph(rng, lift=(-0.5, 0.7)), random_graph(rng, 31, lift=NONE)]
    rows = [0, 1, 1, 0]
    both = advice(graphs, rows)
    states = tuple(rng.integers(0, 30, 4) for _ in range(2))
    rank, lift = jax.device_get(jax.jit(both.weigh)(states))
    labels = rng.integers(0, 6, 4)
    after = jax.device_get(jax.jit(both.advance)(states, labels))
    for row in range(4):
        pair = graphs[rows[row]], graphs[rows[::-1][row]]
        weights = np.array(
            [
                [step(graph, each[row], label)[0] for label in range(6)]
                for graph, each in zip(pair, states, strict=True)
            ]
        )
        np.testing.assert_allclose(rank[row], weights.sum(0), atol=1e-5)
        lifts = [np.clip(x, *graph.lift) for x, graph in zip(weights, pair, strict=True)]
        np.testing.assert_allclose(lift[row], np.sum(lifts, 0), atol=1e-5)
        for graph, each, reached in zip(pair, states, after, strict=True):
            assert reached[row] == step(graph, each[row], labels[row])[1]
    assert [int(x) for x in both.start()[0]] == [graphs[row].start for row in rows]


def test_states_with_many_arcs_get_rows(monkeypatch):
    """Width and rows are of a bucket, and the weights are the same, up to the last arc."""
    rng, num_labels = np.random.default_rng(1), 300
    counts = np.array([0, *[100] * (FEW_ROWS + 1), 290, 3])
    num_states = len(counts)
    graph = Graph(
        first=np.concatenate([[0], np.cumsum(counts)]),
        labels=np.concatenate([rng.permutation(num_labels)[:n] for n in counts]),
        weights=rng.normal(size=counts.sum()),
        targets=rng.integers(0, num_states, counts.sum()),
        backoff=np.maximum(np.arange(num_states) - 1, 0) * (np.arange(num_states) > 60),
        backoff_weights=np.repeat(rng.normal(size=(num_states, 1)), 2, axis=1),
        rows={0: (rng.normal(size=num_labels), rng.integers(0, num_states, num_labels))},
        classes=np.zeros(num_labels, int),
        start=0,
        lift=NONE,
    )  # fmt: skip
    num_arcs = counts[counts <= WIDTHS[1]].sum()
    monkeypatch.setattr("tdt_jax.decoding.automaton.LEAST_ARCS", num_arcs)
    monkeypatch.setattr("tdt_jax.decoding.automaton.LEAST_STATES", num_states)
    built = automaton(graph)
    assert built.width == WIDTHS[1] and built.row_weights.shape == (1, 4, num_labels)
    states = np.arange(num_states)
    both = tdt.Advice((built,), (np.zeros(num_states, np.int32),))
    rank, _ = jax.device_get(jax.jit(both.weigh)((states,)))
    for state in (0, 1, 60, FEW_ROWS + 1, FEW_ROWS + 2, FEW_ROWS + 3):
        expected = [step(graph, state, label)[0] for label in range(num_labels)]
        np.testing.assert_allclose(rank[state], expected, atol=1e-5)


def test_blank_keeps_its_place_but_for_the_lift():
    logits = np.log(np.array([0.1, 0.2, 0.05, 0.65]))

    def token(rank, lift):
        return int(best_token(logits, np.array(rank), np.array(lift)))

    assert token([0, 0, 0], [0, 0, 0]) == 3
    assert token([9, 0, 0], [0, 0, 0]) == 3  # a language model inserts nothing
    assert token([9, 0, 0], [1.8, 0, 0]) == 3
    assert token([9, 0, 0], [1.9, 0, 0]) == 0  # 0.1 e^1.9 > 0.65
    assert token([-9, 0, 0], [0, 1.2, 0]) == 1
    logits = np.log(np.array([0.1, 0.5, 0.3, 0.1]))
    assert token([0, -1, 0], [0, 0, 0]) == 2  # a label for a label, and never for blank
    assert token([-9, -9, -9], [0, 0, 0]) == 0 + 1
    assert token([0, -1e30, -1e30], [0, -1e30, -1e30]) == 0
    assert token([-1e30, -1e30, -1e30], [-1e30, -1e30, -1e30]) == 3  # forbidden labels


@functools.cache
def transducer(durations=TDT):
    return models.numpy_model(models.emitting(models.config(durations)))


def frames(rows=6, size=15):
    return np.random.default_rng(5).normal(size=(rows, size, 16)).astype(np.float32)


SIZES = np.array([15, 9, 12, 15, 4, 0], np.int32)
OPTIONS = dict(max_symbols=3)


def random_advice(seed, rows=6, lift=(0.0, 2.0), scale=2.0):
    rng = np.random.default_rng(seed)
    graphs = [random_graph(rng, lift=lift, scale=scale) for _ in range(3)]
    return tdt.Advice(
        (stack([automaton(graph) for graph in graphs]),),
        (rng.integers(0, 3, rows).astype(np.int32),),
    )


def as_lists(hypothesis):
    hypothesis = jax.device_get(hypothesis)
    return [
        list(zip(*(x[row, :n].tolist() for x in hypothesis if x.ndim > 1), strict=True))
        for row, n in enumerate(hypothesis.num_labels)
    ]


@pytest.mark.parametrize("durations", [TDT, pytest.param(None, marks=pytest.mark.slow)])
def test_the_decoder_follows_the_advice(durations):
    """Step by step as written in numpy, from the model's logits; scores are the model's own."""
    model = transducer(durations)
    rng = np.random.default_rng(3)
    graph = random_graph(rng, lift=(0.0, 2.0), scale=2.0)
    told = tdt.Advice((automaton(graph),), (np.zeros(6, np.int32),))
    decoded = jax.device_get(tdt.greedy_decode(model, frames(), SIZES, advice=told, **OPTIONS))
    plain = tdt.greedy_decode(model, frames(), SIZES, **OPTIONS)
    assert as_lists(decoded) != as_lists(plain)
    state = graph.start

    @jax.jit
    def logits_of(model, frame, node):
        return model.joint.heads(model.joint.project_frames(frame), node.projected)[0][0]

    @jax.jit
    def after(model, label, node):
        output, predictor = model.predictor.step(label, node.predictor)
        return node._replace(predictor=predictor, projected=model.joint.project_states(output))

    node = jax.jit(tdt.start_decoding, static_argnums=1)(model, 1)
    for u in range(decoded.num_labels[0]):
        frame = frames()[:1, decoded.times[0, u]]
        logits = np.asarray(logits_of(model, frame, node), np.float64)
        weights = np.array([step(graph, state, label)[0] for label in range(6)])
        assert decoded.labels[0, u] == best_token(logits, weights, weights.clip(0, 2))
        label = int(decoded.labels[0, u])
        score = logits[label] - np.log(np.sum(np.exp(logits)))
        np.testing.assert_allclose(decoded.scores[0, u], score, atol=1e-4)
        state = step(graph, state, label)[1]
        node = after(model, np.array([label]), node)
    assert decoded.num_labels[0] > 3


def test_advice_that_weighs_nothing_changes_nothing():
    rng = np.random.default_rng(0)
    graph = random_graph(rng, scale=0.0)
    none = tdt.Advice((automaton(graph),), (np.zeros(6, np.int32),))
    model = transducer()
    plain = jax.device_get(tdt.greedy_decode(model, frames(), SIZES, **OPTIONS))
    told = jax.device_get(tdt.greedy_decode(model, frames(), SIZES, advice=none, **OPTIONS))
    for name, one, other in zip(plain._fields, plain, told, strict=True):
        np.testing.assert_array_equal(one, other, name)


def test_a_row_has_its_own_advice():
    """Neither the rest of the batch nor the advice of others has an influence."""
    model, told = transducer(), random_advice(1)
    together = as_lists(tdt.greedy_decode(model, frames(), SIZES, advice=told, **OPTIONS))
    order = np.array([3, 0, 5, 1, 4, 2])
    moved = told._replace(chosen=(told.chosen[0][order],))
    other = tdt.greedy_decode(model, frames()[order], SIZES[order], advice=moved, **OPTIONS)
    assert [together[row] for row in order] == as_lists(other)
    shifted = told._replace(chosen=((told.chosen[0] + 1) % 3,))
    assert together != as_lists(
        tdt.greedy_decode(model, frames(), SIZES, advice=shifted, **OPTIONS)
    )


def test_chunk_by_chunk_is_the_whole_with_advice():
    """The automata's states are carried over the borders."""
    model, told = transducer(), random_advice(2)
    whole = as_lists(tdt.greedy_decode(model, frames(), SIZES, advice=told, **OPTIONS))
    state, emitted = tdt.start_decoding(model, 6, told), [[] for _ in SIZES]
    for start in range(0, 15, 5):
        sizes = np.clip(SIZES - start, 0, 5).astype(np.int32)
        chunk = frames()[:, start : start + 5]
        part, state = tdt.decode_chunk(model, chunk, sizes, state, advice=told, **OPTIONS)
        part = part._replace(times=part.times + start)
        for row, labels in enumerate(as_lists(part)):
            emitted[row] += labels
    for row, labels in enumerate(whole):
        assert len(labels) == len(emitted[row])
        np.testing.assert_allclose(emitted[row], labels, atol=1e-4)


def test_a_new_utterance_starts_its_advice_anew():
    model, told = transducer(), random_advice(3)
    start = tdt.start_decoding(model, 6, told)
    _, after = tdt.decode_chunk(model, frames(), SIZES, start, advice=told, **OPTIONS)
    rows = np.arange(6) % 2 == 0
    again = after.restart(rows, tdt.start_decoding(model, 1)._replace(advice=start.advice))
    expected = np.where(rows, start.advice[0], after.advice[0])
    np.testing.assert_array_equal(again.advice[0], expected)


def test_other_advice_of_the_same_sizes_compiles_nothing():
    """A hundred lists, one program."""
    model = transducer()
    decode = functools.partial(
        num_compilations, tdt.greedy_decode, model, frames()[:2], SIZES[:2], max_symbols=4
    )
    assert decode(advice=random_advice(0, rows=2)) == 1
    for seed in range(1, 100):
        assert decode(advice=random_advice(seed, rows=2)) == 0


def test_a_state_of_other_advice_is_refused():
    model, told = transducer(), random_advice(0)
    state = tdt.start_decoding(model, 6)
    with pytest.raises(ValueError, match=r"a state of the same advice.*0 automata.*has 1"):
        tdt.decode_chunk(model, frames(), SIZES, state, advice=told)


def test_advice_of_other_rows_or_labels_is_refused():
    model, told = transducer(), random_advice(0)
    fewer = told._replace(chosen=(told.chosen[0][:1],))
    other = automaton(random_graph(np.random.default_rng(0), num_labels=5))
    for wrong, message in (
        (fewer, r"of shapes \[\(1,\)\] and automata of \[6\]"),
        (told._replace(automata=(other,)), r"of shapes \[\(6,\)\] and automata of \[5\] labels"),
    ):
        with pytest.raises(ValueError, match=rf"must be of 6 rows and 6 labels, got.* {message}"):
            tdt.greedy_decode(model, frames(), SIZES, advice=wrong)


def test_a_single_row_follows_its_advice_on_an_accelerator(monkeypatch):
    """Where it is decoded as a batch of two."""
    model, told = transducer(), random_advice(1)
    monkeypatch.setattr(backend, "current", lambda: "gpu")
    first = told._replace(chosen=(told.chosen[0][:1],))
    alone = tdt.greedy_decode(model, frames()[:1], SIZES[:1], advice=first, **OPTIONS)
    together = tdt.greedy_decode(model, frames(), SIZES, advice=told, **OPTIONS)
    np.testing.assert_allclose(as_lists(alone)[0], as_lists(together)[0], atol=1e-4)


def test_automata_of_different_vocabularies_are_refused():
    rng = np.random.default_rng(0)
    pair = [automaton(random_graph(rng, num_labels=size)) for size in (5, 6)]
    with pytest.raises(ValueError, match=r"different vocabularies.*\[5, 6\] labels"):
        stack(pair)
