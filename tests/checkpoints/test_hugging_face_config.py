"""transformers' config.json: as published, as written, and what does not fit."""

import dataclasses
import json

import pytest
from parakeet_files import FOLDERS, changed

from tdt_jax import presets
from tdt_jax.checkpoints.formats.fields import ConfigReader
from tdt_jax.checkpoints.parakeet.hugging_face_config import (
    model_config,
    processor_config,
    read_config,
)

PARAKEETS = presets.PARAKEET_TDT_0_6B_V3, presets.PARAKEET_RNNT_0_6B, presets.PARAKEET_CTC_0_6B


def read(config, extractor, processor=()):
    readers = (ConfigReader(dict(each), "a") for each in (config, extractor, processor))
    return read_config(*readers)


def test_the_published_folder_is_read():
    """config.json and processor_config.json of parakeet-tdt-0.6b-v3."""
    config = {
        "architectures": ["ParakeetForTDT"], "blank_token_id": 8192, "decoder_hidden_size": 640,
        "dtype": "float32", "durations": [0, 1, 2, 3, 4],
        "encoder_config": {
            "activation_dropout": 0.1, "attention_bias": False, "attention_dropout": 0.1,
            "conv_kernel_size": 9, "convolution_bias": False, "dropout": 0.1,
            "dropout_positions": 0.0, "hidden_act": "silu", "hidden_size": 1024,
            "initializer_range": 0.02, "intermediate_size": 4096, "layerdrop": 0.1,
            "max_position_embeddings": 5000, "model_type": "parakeet_encoder",
            "num_attention_heads": 8, "num_hidden_layers": 24, "num_key_value_heads": 8,
            "num_mel_bins": 128, "scale_input": False, "subsampling_conv_channels": 256,
            "subsampling_conv_kernel_size": 3, "subsampling_conv_stride": 2,
            "subsampling_factor": 8,
        },
        "hidden_act": "relu", "initializer_range": 0.02, "is_encoder_decoder": True,
        "max_symbols_per_step": 10, "model_type": "parakeet_tdt", "num_decoder_layers": 2,
        "pad_token_id": 2, "transformers_version": "5.6.0.dev0", "vocab_size": 8193,
    }  # fmt: skip
    extractor = {
        "feature_extractor_type": "ParakeetFeatureExtractor", "feature_size": 128,
        "hop_length": 160, "n_fft": 512, "padding_side": "right", "padding_value": 0.0,
        "preemphasis": 0.97, "return_attention_mask": True, "sampling_rate": 16000,
        "win_length": 400,
    }  # fmt: skip
    assert read(config, extractor) == presets.PARAKEET_TDT_0_6B_V3


@pytest.mark.parametrize("config", PARAKEETS, ids=lambda config: config.kind)
def test_what_is_written_is_read(config):
    extractor = processor_config(config)["feature_extractor"]
    again = read(model_config(config), extractor)
    # transformers has one dropout for the encoder, and none for the rest.
    for name in ("predictor", "joint"):
        part = getattr(config, name)
        if part is not None:
            config = dataclasses.replace(config, **{name: getattr(again, name)})
            assert part.width == getattr(again, name).width
    assert again == config


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"model_type": "whisper"}, "whisper"),
        ({"encoder_config__num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
        ({"encoder_config__hidden_size": 1 << 40}, "hidden_size"),
        ({"num_decoder_layers": 10**7}, "num_decoder_layers"),
        ({"vocab_size": 10**10}, "vocab_size"),
        ({"vocab_size": 50}, "blank_token_id is"),
        ({"durations": [0, "x"]}, "durations"),
        ({"durations": None}, "durations is None"),
        ({"encoder_config": None}, "feature_size is 16; 80"),
        ({"durations": [2, 1, 0, 3, 4]}, "increase strictly"),
        ({"hidden_act": "tanh"}, "tanh"),
        ({"encoder_config__convolution_bias": False}, "convolution_bias"),
        ({"encoder_config__subsampling_factor": 4}, "subsampling_factor is 4"),
        ({"encoder_config__intermediate_size": 33}, "do not go together"),
        ({"encoder_config": 3}, "encoder_config is 3"),
        ({"model_type": []}, "model_type is"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_configurations_that_do_not_fit(changes, why):
    config = json.loads((FOLDERS["tdt"] / "config.json").read_text())
    processor = json.loads((FOLDERS["tdt"] / "processor_config.json").read_text())
    with pytest.raises(ValueError, match=why):
        read(changed(config, **changes), processor["feature_extractor"])


def test_all_problems_are_in_one_error():
    config = json.loads((FOLDERS["tdt"] / "config.json").read_text())
    changes = dict(encoder_config__subsampling_factor=4, hidden_act="tanh", vocab_size=0)
    with pytest.raises(ValueError, match=r"subsampling_factor is 4.*vocab_size is 0.*tanh"):
        read(changed(config, **changes), {"feature_size": 16})


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"encoder": {"convolution_norm": "layer_norm"}}, "a LayerNorm"),
        ({"encoder": {"attention_context": (8, 8)}}, "local attention"),
        ({"features": {"normalize": (0.0, 1.0)}}, "not normalised by utterance"),
        ({"features": {"silence": 22.0}}, "leave out silence"),
        ({"joint": {"width": 10}}, "another width"),
        ({"durations": (1, 2)}, r"durations \(1, 2\)"),
        ({"ctc": True}, "CTC head"),
    ],
    ids=str,
)
def test_models_that_transformers_does_not_have_are_refused(changes, why):
    config = presets.PARAKEET_TDT_0_6B_V3
    for name, value in changes.items():
        if isinstance(value, dict):
            value = dataclasses.replace(getattr(config, name), **value)
        config = dataclasses.replace(config, **{name: value})
    with pytest.raises(ValueError, match=f"has no Parakeet model with: .*{why}"):
        model_config(config)
