"""transformers as a peer: what of its output counts."""

import numpy as np

from tdt_jax.benchmarks import peers


def test_labels_after_the_last_frame_are_left_out():
    """Blank is 9: steps at frames 0, 2, 2, 3 and, after the end, 7."""
    labels, times, durations = peers.cut(
        np.array([5, 4, 9, 3, 2, 0]), np.array([2, 0, 1, 4, 1]), blank=9, num_frames=6
    )
    assert labels.tolist() == [5, 4, 3]
    assert times.tolist() == [0, 2, 3]
    assert durations.tolist() == [2, 0, 4]
