"""Token-and-Duration Transducers in JAX.

Dimensions, in shape comments everywhere:

    B batch             S samples            M feature frames (10 ms)   F mel bins
    T encoder frames    U labels             D encoder width            P predictor width
    J joint width       V vocabulary (blank is index V)                 N durations
    H heads             K head width         L layers, or label capacity of a hypothesis
"""

from tdt_jax.config import Config, ModelConfig
from tdt_jax.decode import Hypothesis, greedy_decode
from tdt_jax.features import log_mel
from tdt_jax.loss import rnnt_loss, tdt_loss, transducer_loss
from tdt_jax.model import Transducer, encode
