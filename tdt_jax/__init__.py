"""Token-and-Duration Transducers in JAX.

Dimensions, in shape comments everywhere:

    B batch             S samples            M feature frames (10 ms)   F mel bins
    T encoder frames    U labels             D encoder width            P predictor width
    J joint width       V vocabulary (blank is index V)                 N durations
    H heads             K head width         L layers, or label capacity of a hypothesis
"""

from tdt_jax.audio.request import AudioError, AudioWarning
from tdt_jax.checkpoints.loading import load, save
from tdt_jax.config import (
    AugmentConfig,
    Bucket,
    Config,
    DataConfig,
    EncoderConfig,
    FeatureConfig,
    JointConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    PredictorConfig,
    TelephoneConfig,
    TokenizerConfig,
    TrainingConfig,
    override,
)
from tdt_jax.decoding.ctc import ctc_decode
from tdt_jax.decoding.greedy import decode_chunk, greedy_decode, start_decoding
from tdt_jax.decoding.hypothesis import DecoderState, Hypothesis
from tdt_jax.inference.streaming import Stream
from tdt_jax.inference.transcript import Segment, Token, Transcript, Word
from tdt_jax.inference.transcription import transcribe
from tdt_jax.losses.alignment import Alignment, Occupancy, align, occupancy
from tdt_jax.losses.dense import rnnt_loss, tdt_loss
from tdt_jax.losses.tiled import transducer_loss
from tdt_jax.models.features import log_mel
from tdt_jax.models.transducer import Transducer, encode
from tdt_jax.recogniser import Recogniser, with_attention_context

__version__ = "0.1.0"
