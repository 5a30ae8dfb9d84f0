"""Automata label by label, as `tdt_jax.decoding.automaton.Graph` describes them."""


def step(graph, state, label):
    """Returns the weight of a label after a state, and the state that follows."""
    loss = 0.0
    while True:
        if state in graph.rows:
            weights, targets = graph.rows[state]
            return loss + weights[label], targets[label]
        arcs = slice(graph.first[state], graph.first[state + 1])
        if label in graph.labels[arcs]:
            at = graph.first[state] + list(graph.labels[arcs]).index(label)
            return loss + graph.weights[at], graph.targets[at]
        loss += graph.backoff_weights[state, graph.classes[label]]
        state = graph.backoff[state]


def weights(graph, labels):
    """Returns the weights of labels, one after another."""
    state, found = graph.start, []
    for label in labels:
        weight, state = step(graph, state, label)
        found.append(weight)
    return found


def cuts(text, pieces, rng):
    """Returns labels that spell a text, chosen at random among those that may come next.

    `pieces` are the labels' texts, with spaces, in lower case.
    """
    text, labels = f" {text}", []
    while text:
        labels.append(rng.choice([i for i, piece in enumerate(pieces) if text.startswith(piece)]))
        text = text[len(pieces[labels[-1]]) :]
    return labels
