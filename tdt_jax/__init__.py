"""Token-and-Duration Transducers in JAX.

Dimensions, in shape comments everywhere:

    B batch             S samples            M feature frames (10 ms)   F mel bins
    T encoder frames    U labels             D encoder width            P predictor width
    J joint width       V vocabulary (blank is index V)                 N durations
    H heads             K head width         L layers, or label capacity of a hypothesis
"""

from tdt_jax import config, presets
from tdt_jax.advice.phrases import AdviceWarning
from tdt_jax.audio.errors import AudioError, AudioWarning
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
    PromptConfig,
    TelephoneConfig,
    TokenizerConfig,
    TrainingConfig,
    override,
)
from tdt_jax.decoding import (
    Advice,
    DecoderState,
    Hypothesis,
    ctc_decode,
    decode_chunk,
    greedy_decode,
    start_decoding,
)
from tdt_jax.exports.exporting import export
from tdt_jax.inference import (
    EndOfTurn,
    EndOfUtterance,
    Segment,
    Stream,
    Streams,
    Token,
    Transcript,
    Word,
    transcribe,
)
from tdt_jax.losses import (
    Alignment,
    Occupancy,
    align,
    occupancy,
    rnnt_loss,
    tdt_loss,
    transducer_loss,
)
from tdt_jax.models import (
    EncoderState,
    FeatureState,
    Transducer,
    encode,
    encode_chunk,
    log_mel,
    log_mel_chunk,
    start_encoding,
    start_log_mel,
)
from tdt_jax.recogniser import (
    Recogniser,
    with_attention_context,
    with_language,
    with_lookahead,
)
from tdt_jax.runtime import sharding

__version__ = "0.1.0"

__all__ = [
    "Advice",
    "AdviceWarning",
    "Alignment",
    "AudioError",
    "AudioWarning",
    "AugmentConfig",
    "Bucket",
    "Config",
    "DataConfig",
    "DecoderState",
    "EncoderConfig",
    "EncoderState",
    "EndOfTurn",
    "EndOfUtterance",
    "FeatureConfig",
    "FeatureState",
    "Hypothesis",
    "JointConfig",
    "LossConfig",
    "ModelConfig",
    "Occupancy",
    "OptimizerConfig",
    "PredictorConfig",
    "PromptConfig",
    "Recogniser",
    "Segment",
    "Stream",
    "Streams",
    "TelephoneConfig",
    "Token",
    "TokenizerConfig",
    "TrainingConfig",
    "Transcript",
    "Transducer",
    "Word",
    "align",
    "config",
    "ctc_decode",
    "decode_chunk",
    "encode",
    "encode_chunk",
    "export",
    "greedy_decode",
    "load",
    "log_mel",
    "log_mel_chunk",
    "occupancy",
    "override",
    "presets",
    "rnnt_loss",
    "save",
    "sharding",
    "start_decoding",
    "start_encoding",
    "start_log_mel",
    "tdt_loss",
    "transcribe",
    "transducer_loss",
    "with_attention_context",
    "with_language",
    "with_lookahead",
]
