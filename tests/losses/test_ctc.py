"""The CTC loss against every sequence of tokens written out."""

import itertools

import jax
import numpy as np
from lattice_oracle import log_softmax

from tdt_jax.losses.ctc import ctc_fits, ctc_loss

FRAMES, BLANK = 4, 2


def test_it_sums_every_sequence_that_collapses_to_the_labels():
    """What no sequence of the frames collapses to does not fit, and has a loss of 0."""
    rng = np.random.default_rng(0)
    cases = [
        (frames, labels)
        for frames in range(1, FRAMES + 1)
        for count in range(4)
        for labels in itertools.product(range(BLANK), repeat=count)
    ]
    logits = rng.normal(size=(len(cases), FRAMES, BLANK + 1)).astype(np.float32)
    num_frames, num_labels = np.array([(frames, len(labels)) for frames, labels in cases]).T
    labels = np.array([(*labels, *[BLANK - 1] * (3 - len(labels))) for _, labels in cases])
    lengths = num_frames.astype(np.int32), labels.astype(np.int32), num_labels.astype(np.int32)
    losses = jax.device_get(
        jax.jit(ctc_loss, static_argnames="blank")(logits, *lengths, blank=BLANK)
    )
    fits = jax.device_get(jax.jit(ctc_fits)(*lengths))
    for b, (frames, sequence) in enumerate(cases):
        scores = log_softmax(logits[b])
        paths = [
            sum(scores[t, token] for t, token in enumerate(tokens))
            for tokens in itertools.product(range(BLANK + 1), repeat=frames)
            if tuple(k for k, _ in itertools.groupby(tokens) if k != BLANK) == sequence
        ]
        assert fits[b] == bool(paths)
        expected = -np.logaddexp.reduce(paths) if paths else 0.0
        np.testing.assert_allclose(losses[b], expected, rtol=1e-5)
