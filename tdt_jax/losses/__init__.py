"""The alignment lattice, and all that is summed or searched on it. Knows arrays only, and no flax.

lattice.py       forward-backward, arc posteriors and best path, for any set of durations
scores.py        logits <-> the few numbers that the lattice needs of a node
dense.py         tdt_loss, rnnt_loss: from the logits of all nodes
grid.py          nodes in tiles, and a schedule of the tiles that matter
nodes.py         any joint network, evaluated on tiles
tiled.py         transducer_loss: never holds the logits of all nodes
alignment.py     align, occupancy
ctc.py           ctc_loss
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
