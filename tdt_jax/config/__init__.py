"""Configuration: nested frozen dataclasses that hold every default, checked when they are built.

model.py         FeatureConfig, EncoderConfig, PredictorConfig, JointConfig, PromptConfig,
                 ModelConfig
training.py      LossConfig ... Config: a whole run
text.py          configuration files, "a.b=value", JSON
checks.py        the checks of the dataclasses' fields

A configuration is a Python file that returns a `Config`; `override` changes single fields from text
("optimizer.learning_rate=1e-3"), and `to_json` and `from_json` write and read it.
"""

from tdt_jax.config.model import (
    REMAT_POLICIES,
    EncoderConfig,
    FeatureConfig,
    JointConfig,
    ModelConfig,
    PredictorConfig,
    PromptConfig,
    check_durations,
)
from tdt_jax.config.text import from_json, load, override, to_json
from tdt_jax.config.training import (
    AugmentConfig,
    Bucket,
    Config,
    DataConfig,
    LossConfig,
    OptimizerConfig,
    TelephoneConfig,
    TokenizerConfig,
    TrainingConfig,
    TuningConfig,
)

__all__ = [
    "REMAT_POLICIES",
    "AugmentConfig",
    "Bucket",
    "Config",
    "DataConfig",
    "EncoderConfig",
    "FeatureConfig",
    "JointConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PredictorConfig",
    "PromptConfig",
    "TelephoneConfig",
    "TokenizerConfig",
    "TrainingConfig",
    "TuningConfig",
    "check_durations",
    "from_json",
    "load",
    "override",
    "to_json",
]
