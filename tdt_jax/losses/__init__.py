"""The alignment lattice, and all that is summed or searched on it. Knows arrays only, no flax.

dense.py           tdt_loss, rnnt_loss: from the logits of all nodes
tiled.py           transducer_loss: the same, from a joint network, never holding its logits
alignment.py       align, occupancy: where the labels of a transcript lie
ctc.py             ctc_loss, ctc_fits
lattice.py         forward-backward, arc posteriors and best path, for any set of durations
lattice_kernel.py  its recursions in one kernel, on TPUs and GPUs
recursion.py       what the recursions share, by lax.scan or in the kernel
scores.py          Spec, Scores: logits <-> the few numbers that the lattice needs of each node
grid.py            nodes in tiles, and a schedule of the tiles that matter
nodes.py           any joint network, evaluated on tiles
checks.py          checks of arguments

A loss goes from logits to scores to arcs to the lattice, and its gradient goes back in closed form.
"""

from tdt_jax.losses.alignment import Alignment, Occupancy, align, occupancy
from tdt_jax.losses.ctc import ctc_loss
from tdt_jax.losses.dense import rnnt_loss, tdt_loss
from tdt_jax.losses.tiled import transducer_loss

__all__ = [
    "Alignment",
    "Occupancy",
    "align",
    "ctc_loss",
    "occupancy",
    "rnnt_loss",
    "tdt_loss",
    "transducer_loss",
]
