"""A ModelConfig as NeMo's model_config.yaml."""

import math

from tdt_jax.config import FeatureConfig, ModelConfig
from tdt_jax.pretrained.nemo_config import CLASSES, MODELS


def write_config(config: ModelConfig, pieces: list[str]) -> dict:
    """The model_config.yaml of a model, complete enough for NeMo to restore and train it."""
    features, encoder = config.features, config.encoder
    if config.predictor is not None and config.predictor.blank_embedding:
        raise ValueError("NeMo's embedding of blank is zero; this model has a learned one")
    left, right = encoder.attention_context or (-1, -1)
    written = {
        # NeMo passes over it: its features count all frames, ours leave out silence.
        "tdt_jax": {"silence": features.silence},
        "target": MODELS + CLASSES["ctc" if config.predictor is None else "transducer", config.ctc],
        "sample_rate": features.sample_rate,
        "tokenizer": {
            "dir": "",
            "type": "bpe",
            "model_path": "nemo:tokenizer.model",
            "vocab_path": "nemo:vocab.txt",
            "spe_tokenizer_vocab": "nemo:tokenizer.vocab",
        },
        "preprocessor": {
            "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
            "sample_rate": features.sample_rate,
            "normalize": _written_normalize(features),
            "window_size": _seconds(features.window_length, features.sample_rate),
            "window_stride": _seconds(features.hop_length, features.sample_rate),
            "window": "hann",
            "features": features.num_mels,
            "n_fft": features.fft_length,
            "log": True,
            "frame_splicing": 1,
            "dither": features.dither,
            "pad_to": 0,
            "pad_value": 0.0,
            "preemph": features.preemphasis,
        },
        "spec_augment": {
            "_target_": "nemo.collections.asr.modules.SpectrogramAugmentation",
            "freq_masks": 2,
            "time_masks": 10,
            "freq_width": 27,
            "time_width": 0.05,
        },
        "encoder": {
            "_target_": "nemo.collections.asr.modules.ConformerEncoder",
            "feat_in": features.num_mels,
            "feat_out": -1,
            "n_layers": encoder.num_layers,
            "d_model": encoder.width,
            "use_bias": encoder.use_bias,
            "subsampling": "dw_striding",
            "subsampling_factor": 8,
            "subsampling_conv_channels": encoder.subsampling_channels,
            "causal_downsampling": False,
            "ff_expansion_factor": encoder.feed_forward_factor,
            "self_attention_model": (
                "rel_pos" if encoder.attention_context is None else "rel_pos_local_attn"
            ),
            "n_heads": encoder.num_heads,
            "att_context_size": [left, right],
            "att_context_style": "regular",
            "xscaling": encoder.scale_input,
            "untie_biases": True,
            "pos_emb_max_len": 5000,
            "conv_kernel_size": encoder.kernel_size,
            "conv_norm_type": (
                "layer_norm" if encoder.convolution_norm == "layer_norm" else "batch_norm"
            ),
            "conv_context_size": None,
            "dropout": encoder.dropout,
            "dropout_pre_encoder": encoder.dropout,
            "dropout_emb": 0.0,
            "dropout_att": encoder.attention_dropout,
        },
        "optim": {"name": "adamw", "lr": 1e-4, "betas": [0.9, 0.98], "weight_decay": 1e-3},
    }
    ctc_decoder = {
        "_target_": "nemo.collections.asr.modules.ConvASRDecoder",
        "feat_in": encoder.width,
        "num_classes": config.vocab_size,
        "vocabulary": pieces,
    }
    if config.predictor is None:
        return {**written, "decoder": ctc_decoder, "decoding": {"strategy": "greedy"}}
    written |= _written_transducer(config, pieces)
    if config.ctc:
        written["aux_ctc"] = {
            "ctc_loss_weight": 0.3,
            "use_cer": False,
            "ctc_reduction": "mean_batch",
            "decoder": ctc_decoder,
            "decoding": {"strategy": "greedy"},
        }
    return written


def _seconds(num_samples: int, rate: int) -> float:
    """Seconds of which NeMo, which rounds down, makes as many samples."""
    seconds = num_samples / rate
    return seconds if int(seconds * rate) == num_samples else math.nextafter(seconds, math.inf)


def _written_normalize(features: FeatureConfig) -> str | dict:
    if features.normalize is None:
        return "per_feature"
    if features.normalize == (0.0, 1.0):
        return "NA"
    mean, deviation = ([each] * features.num_mels for each in features.normalize)
    return {"fixed_mean": mean, "fixed_std": deviation}


def _written_transducer(config: ModelConfig, pieces: list[str]) -> dict:
    predictor, joint = config.predictor, config.joint
    durations = list(config.durations or ())
    kind = "rnnt" if config.durations is None else "tdt"
    return {
        "model_defaults": {
            "enc_hidden": config.encoder.width,
            "pred_hidden": predictor.width,
            "joint_hidden": joint.width,
            **({"tdt_durations": durations} if durations else {}),
        },
        "decoder": {
            "_target_": "nemo.collections.asr.modules.RNNTDecoder",
            "normalization_mode": None,
            "random_state_sampling": False,
            "blank_as_pad": True,
            "vocab_size": config.vocab_size,
            "prednet": {
                "pred_hidden": predictor.width,
                "pred_rnn_layers": predictor.num_layers,
                "t_max": None,
                "dropout": predictor.dropout,
            },
        },
        "joint": {
            "_target_": "nemo.collections.asr.modules.RNNTJoint",
            "log_softmax": None,
            "preserve_memory": False,
            "fuse_loss_wer": False,
            "jointnet": {
                "encoder_hidden": config.encoder.width,
                "pred_hidden": predictor.width,
                "joint_hidden": joint.width,
                "activation": "relu",
                "dropout": joint.dropout,
            },
            "num_classes": config.vocab_size,
            "num_extra_outputs": len(durations),
            "vocabulary": pieces,
        },
        "labels": pieces,
        "decoding": {
            "strategy": "greedy_batch",
            **({"model_type": "tdt", "durations": durations} if durations else {}),
            "greedy": {"max_symbols": config.max_symbols},
            "beam": {"beam_size": 2, "return_best_hypothesis": False, "score_norm": True},
        },
        "loss": {
            "loss_name": kind if durations else "default",
            **(
                {"tdt_kwargs": {"fastemit_lambda": 0.0, "clamp": -1.0, "durations": durations,
                                "sigma": 0.02, "omega": 0.1}}
                if durations
                else {"warprnnt_numba_kwargs": {"fastemit_lambda": 0.0, "clamp": -1.0}}
            ),
        },
    }  # fmt: skip
