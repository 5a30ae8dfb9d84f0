"""transformers' config.json: as published, as written, and what does not fit."""

import dataclasses
import json

import pytest
from parakeet_files import FOLDERS, changed

import tdt_jax as tdt
from tdt_jax import presets
from tdt_jax.checkpoints.formats.fields import ConfigReader
from tdt_jax.checkpoints.parakeet import convert, tables
from tdt_jax.checkpoints.parakeet.hugging_face_config import (
    model_config,
    processor_config,
    read_config,
)
from tdt_jax.models.transducer import abstract_model
from tdt_jax.runtime.pytree import named_leaves

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


def streaming(**changes):
    """config.json of nemotron-3.5-asr-streaming-0.6b, and its processor's settings."""
    config = {
        "architectures": ["Nemotron3_5AsrForRNNT"], "blank_token_id": 13087,
        "decoder_hidden_size": 640, "default_prompt_id": 101, "dtype": "float32",
        "encoder_config": {
            "attention_bias": False, "attention_dropout": 0.1, "conv_kernel_size": 9,
            "convolution_bias": False, "default_num_lookahead_tokens": 3, "dropout": 0.1,
            "hidden_act": "silu", "hidden_size": 1024, "intermediate_size": 4096,
            "max_position_embeddings": 5000, "model_type": "nemotron_asr_streaming_encoder",
            "num_attention_heads": 8, "num_hidden_layers": 24, "num_key_value_heads": 8,
            "num_mel_bins": 128, "scale_input": False, "sliding_window": 57,
            "subsampling_conv_channels": 256, "subsampling_conv_kernel_size": 3,
            "subsampling_conv_stride": 2, "subsampling_factor": 8,
        },
        "hidden_act": "relu", "is_encoder_decoder": True, "max_symbols_per_step": 10,
        "model_type": "nemotron3_5_asr", "num_decoder_layers": 2, "num_prompts": 128,
        "pad_token_id": 0, "prompt_intermediate_size": 2048, "vocab_size": 13088,
    }  # fmt: skip
    processor = {
        "blank_token": "<blank>", "default_num_lookahead_tokens": 3, "num_prompts": 128,
        "processor_class": "Nemotron3_5AsrProcessor",
        "prompt_dictionary": {"en-US": 0, "de-DE": 9, "auto": 101},
        "supported_num_lookahead_tokens": [13, 6, 3, 0],
        "feature_extractor": {
            "feature_extractor_type": "NemotronAsrStreamingFeatureExtractor", "feature_size": 128,
            "hop_length": 160, "mel_filters_dtype": "float32", "n_fft": 512, "preemphasis": 0.97,
            "sampling_rate": 16000, "win_length": 400,
        },
    }  # fmt: skip
    for path, value in changes.items():
        part, _, field = path.partition("__")
        changed({"config": config, "processor": processor}[part], **{field: value})
    return config, processor["feature_extractor"], processor


def test_published_streaming_models_are_read():
    config = read(*streaming())
    encoder = config.encoder
    assert config.kind == "RNN-T" and encoder.is_causal and config.blank == 13087
    assert encoder.chunked_contexts == ((56, 3), (56, 13), (56, 6), (56, 0))
    assert encoder.convolution_context == (8, 0) and encoder.convolution_norm == "layer_norm"
    assert config.features.normalize == (0.0, 1.0)
    assert config.prompt == tdt.PromptConfig(
        128, 2048, 101, (("en-US", 0), ("de-DE", 9), ("auto", 101))
    )
    shapes = {name: leaf.shape for name, leaf in named_leaves(abstract_model(config)).items()}
    tensors = {
        tables.hugging_face_streaming_name(name): shape
        for name, shape in convert.tensor_shapes(config, shapes).items()
    }
    assert tensors["encoder.subsampling.linear.weight"] == (1024, 4352)
    assert tensors["encoder.subsampling.conv_in.weight"] == (256, 1, 3, 3)
    assert tensors["encoder.subsampling.layers.1.pointwise_conv.weight"] == (256, 256, 1, 1)
    assert tensors["prompt_projector.linear_1.weight"] == (2048, 1152)

    english = streaming(
        config__model_type="nemotron_asr_streaming",
        config__vocab_size=1025,
        config__blank_token_id=1024,
        config__encoder_config__sliding_window=71,
        config__encoder_config__default_num_lookahead_tokens=13,
        processor__supported_num_lookahead_tokens=[13, 6, 1, 0],
    )
    config = read(*english)
    assert config.prompt is None and config.blank == 1024
    assert config.encoder.chunked_contexts == ((70, 13), (70, 6), (70, 1), (70, 0))
    assert read(*english[:2]).encoder.chunked_contexts == ((70, 13),)  # without a processor


@pytest.mark.parametrize("model_type", ["nemotron3_5_asr", "nemotron_asr_streaming"])
def test_what_is_written_of_a_streaming_model_is_read(model_type):
    config = read(*streaming(config__model_type=model_type))
    fields, processor = model_config(config), processor_config(config)
    assert fields["model_type"] == model_type
    assert fields["encoder_config"]["model_type"] == "nemotron_asr_streaming_encoder"
    assert read(fields, processor["feature_extractor"], processor) == config


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"config__encoder_config__sliding_window": 0}, "sliding_window is 0"),
        ({"config__encoder_config__sliding_window": 58}, "57 frames to the left are no multiple"),
        ({"config__encoder_config__default_num_lookahead_tokens": -1}, "default_num_look.* is -1"),
        ({"config__encoder_config__default_num_lookahead_tokens": "3"}, "default_num_look.* '3'"),
        ({"processor__supported_num_lookahead_tokens": [3, "6"]}, r"\[3, '6'\], not a list"),
        ({"processor__supported_num_lookahead_tokens": [3, -6]}, r"\[3, -6\], not numbers"),
        ({"config__num_prompts": 101}, r"default_prompt_id is 101.*slots in 0\.\.100"),
        ({"config__default_prompt_id": None}, "default_prompt_id is None"),
        ({"config__prompt_intermediate_size": 10**9}, "prompt_intermediate_size is"),
        ({"processor__prompt_dictionary": {"en": 128}}, "prompt_dictionary a dict; slots in"),
        ({"processor__prompt_dictionary": ["en"]}, r"prompt_dictionary \['en'\]; slots in"),
        ({"processor__feature_extractor__mel_filters_dtype": "bfloat16"}, "'bfloat16'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_streaming_configurations_that_do_not_fit(changes, why):
    with pytest.raises(ValueError, match=why):
        read(*streaming(**changes))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"durations": (0, 1, 2, 3, 4)}, "a causal encoder of a TDT: it has causal RNN-Ts only"),
        ({"ctc": True}, "CTC head"),
        ({"encoder": {"convolution_norm": "affine"}}, "a BatchNorm in the convolution module"),
        ({"encoder": {"chunked_contexts": ((56, 3), (70, 13))}}, "several left contexts"),
        ({"encoder": {"convolution_context": None}}, "without the other two; a language prompt"),
        ({"encoder": {"causal_subsampling": False}}, "without the other two"),
        ({"features": {"normalize": (-9.0, 3.0)}}, "of features that are normalised"),
        ({"features": {"normalize": None}}, "of features that are normalised"),
        ({"joint": {"width": 10}}, "another width"),
    ],
    ids=str,
)
def test_streaming_models_that_transformers_does_not_have_are_refused(changes, why):
    config = read(*streaming())
    for name, value in changes.items():
        if isinstance(value, dict):
            value = dataclasses.replace(getattr(config, name), **value)
        config = dataclasses.replace(config, **{name: value})
    with pytest.raises(ValueError, match=f"has no Parakeet model with: .*{why}"):
        model_config(config)


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
        ({"encoder": {"unified_contexts": ((70,), (1,), (0,))}}, "contexts to stream with"),
        ({"encoder": {"chunked_contexts": ((8, 1),)}}, "without the other two"),
        ({"prompt": tdt.PromptConfig()}, "a language prompt on an encoder that is not causal"),
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
