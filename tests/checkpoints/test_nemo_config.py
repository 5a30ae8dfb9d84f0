"""NeMo's model_config.yaml: as published, as written, as NeMo reads it, and what does not fit."""

import copy
import dataclasses

import pytest
from parakeet_files import changed_config

from tdt_jax import presets
from tdt_jax.checkpoints.formats.fields import ConfigReader
from tdt_jax.checkpoints.parakeet import convert, nemo_config
from tdt_jax.models.transducer import abstract_model
from tdt_jax.runtime.pytree import named_leaves


def read(config, has_ctc_head=True):
    reader = ConfigReader(config, "model_config.yaml", nemo_config.NULLS)
    return nemo_config.read_config(reader, has_ctc_head=has_ctc_head)[0]


# Published and written


def published(*, encoder=(), **changes):
    """A model_config.yaml as NVIDIA's archives have it, with what differs from v2's."""
    transducer = {
        "decoder": {
            "normalization_mode": None,
            "blank_as_pad": True,
            "prednet": {"pred_hidden": 640, "pred_rnn_layers": 2, "dropout": 0.2},
        },
        "joint": {
            "jointnet": {"joint_hidden": 640, "activation": "relu", "dropout": 0.2},
            "num_extra_outputs": 5,
        },
        "decoding": {
            "strategy": "greedy_batch",
            "model_type": "tdt",
            "durations": [0, 1, 2, 3, 4],
            "greedy": {"max_symbols": 10},
        },
    }
    return {
        "target": "nemo.collections.asr.models.rnnt_bpe_models.EncDecRNNTBPEModel",
        "labels": ["x"] * 1024,
        "tokenizer": {"dir": None, "type": "bpe", "model_path": "nemo:a_tokenizer.model"},
        "preprocessor": {
            "sample_rate": 16000, "normalize": "per_feature", "window_size": 0.025,
            "window_stride": 0.01, "window": "hann", "features": 128, "n_fft": 512,
            "frame_splicing": 1, "dither": 1e-5, "pad_to": 0, "pad_value": 0.0,
        },
        "encoder": {
            "feat_in": 128, "feat_out": -1, "n_layers": 24, "d_model": 1024, "use_bias": False,
            "subsampling": "dw_striding", "subsampling_factor": 8,
            "subsampling_conv_channels": 256, "causal_downsampling": False,
            "ff_expansion_factor": 4, "self_attention_model": "rel_pos", "n_heads": 8,
            "att_context_size": [-1, -1], "att_context_style": "regular", "xscaling": False,
            "untie_biases": True, "pos_emb_max_len": 5000, "conv_kernel_size": 9,
            "conv_norm_type": "batch_norm", "conv_context_size": None, "dropout": 0.1,
            "dropout_pre_encoder": 0.1, "dropout_emb": 0.0, "dropout_att": 0.1, **dict(encoder),
        },
        **transducer,
        **changes,
    }  # fmt: skip


def test_published_configurations_are_read():
    v2 = published()
    assert read(v2, False) == presets.PARAKEET_TDT_0_6B_V2
    v3 = published(labels=["x"] * 8192)
    assert read(v3, False) == presets.PARAKEET_TDT_0_6B_V3
    hybrid = published(
        target="nemo.collections.asr.models.hybrid_rnnt_ctc_bpe_models.EncDecHybridRNNTCTCBPEModel",
        encoder={"feat_in": 80, "n_layers": 17, "d_model": 512, "use_bias": True},
        preprocessor=v2["preprocessor"] | {"features": 80},
        decoder={"prednet": {"pred_hidden": 640, "pred_rnn_layers": 1, "dropout": 0.2}},
    )
    assert read(hybrid) == presets.PARAKEET_TDT_CTC_110M

    unified = published(
        encoder={
            "att_chunk_context_size": [[70], [1, 2, 7, 13], [0, 1, 2, 3, 4, 7, 13]],
            "att_context_style": "chunked_limited_with_rc", "conv_context_style": "dcc",
            "xscaling": True, "reduction": None, "reduction_position": None,
            "reduction_factor": 1,
        },
        joint={"jointnet": v2["joint"]["jointnet"]},
        decoding={"strategy": "greedy_batch", "greedy": {"max_symbols": 10}},
    )  # fmt: skip
    del unified["encoder"]["use_bias"]
    encoder = dataclasses.replace(
        presets.PARAKEET_TDT_0_6B_V2.encoder,
        use_bias=True,
        scale_input=True,
        unified_contexts=((70,), (1, 2, 7, 13), (0, 1, 2, 3, 4, 7, 13)),
    )
    assert read(unified, False) == dataclasses.replace(
        presets.PARAKEET_TDT_0_6B_V2, encoder=encoder, durations=None
    )


def streaming(contexts=((70, 13), (70, 6), (70, 1), (70, 0)), *, encoder=(), **changes):
    """A model_config.yaml of a causal RNN-T; nemotron-speech-streaming-en-0.6b's by default."""
    rnnt = published()
    rnnt["joint"].pop("num_extra_outputs")
    return published(
        preprocessor=rnnt["preprocessor"] | {"normalize": "NA", "dither": 0.0},
        encoder={
            "causal_downsampling": True, "att_context_size": [list(each) for each in contexts],
            "att_context_style": "chunked_limited", "conv_context_size": "causal",
            "conv_norm_type": "layer_norm", **dict(encoder),
        },
        joint=rnnt["joint"],
        decoding={"strategy": "greedy_batch", "greedy": {"max_symbols": 10}},
        **changes,
    )  # fmt: skip


STREAMING = {
    "nemotron-speech-streaming-en-0.6b": streaming(),
    "nemotron-3.5-asr-streaming-0.6b": streaming(
        ((56, 3), (56, 0), (56, 6), (56, 13)),
        target="nemo.collections.asr.models.rnnt_bpe_models_prompt.EncDecRNNTBPEModelWithPrompt",
        labels=["x"] * 13087,
        model_defaults={
            "enc_hidden": 1024, "initialize_prompt_feature": True, "num_prompts": 128,
            "prompt_dictionary": {"en-US": 0, "en": 0, "de-DE": 9, "no": 27, "auto": 101},
        },
    ),
    "parakeet_realtime_eou_120m-v1": streaming(
        ((70, 1),),
        labels=["x"] * 1026,
        encoder={"n_layers": 17, "d_model": 512},
        decoder={"prednet": {"pred_hidden": 640, "pred_rnn_layers": 1, "dropout": 0.2}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMING)
def test_published_streaming_models_are_read(name):
    config = read(STREAMING[name], False)
    encoder = config.encoder
    assert config.kind == "RNN-T" and encoder.is_causal and not config.ctc
    assert config.features.normalize == (0.0, 1.0) and config.features.num_mels == 128
    assert encoder.convolution_context == (8, 0) and encoder.convolution_norm == "layer_norm"
    shapes = {name: leaf.shape for name, leaf in named_leaves(abstract_model(config)).items()}
    tensors = convert.tensor_shapes(config, shapes)
    assert tensors["encoder.pre_encode.out.weight"] == (encoder.width, 4352)
    assert tensors["encoder.layers.0.conv.batch_norm.weight"] == (encoder.width,)
    assert "encoder.layers.0.conv.batch_norm.running_mean" not in tensors
    if name.startswith("nemotron-3.5"):
        assert encoder.chunked_contexts == ((56, 3), (56, 0), (56, 6), (56, 13))
        assert config.blank == 13087 and config.prompt.default == 101
        assert config.prompt.slot("de-DE") == 9 and config.prompt.slot("no") == 27
        assert tensors["prompt_kernel.0.weight"] == (2048, 1152)
        assert tensors["prompt_kernel.2.weight"] == (1024, 2048)
    elif name.startswith("nemotron"):
        assert encoder.chunked_contexts == ((70, 13), (70, 6), (70, 1), (70, 0))
        assert config.blank == 1024 and config.prompt is None
    else:
        assert encoder.chunked_contexts == ((70, 1),) and config.blank == 1026
        assert (encoder.num_layers, encoder.width, config.predictor.num_layers) == (17, 512, 1)


@pytest.mark.parametrize("name", STREAMING)
def test_what_is_written_of_a_streaming_model_is_read(name):
    config = read(STREAMING[name], False)
    pieces = [f"piece{i}" for i in range(config.vocab_size)]
    assert read(nemo_config.write_config(config, pieces), False) == config


def test_causal_transducers_of_every_kind_are_written():
    """A TDT, and hybrids with a CTC head and a prompt: the parts compose in NeMo."""
    base = read(STREAMING["nemotron-3.5-asr-streaming-0.6b"], False)
    for changes in (
        {"durations": (0, 1, 2, 3, 4)},
        {"durations": (0, 1, 2, 3, 4), "prompt": None},
        {"ctc": True},
        {"ctc": True, "prompt": None},
    ):
        config = dataclasses.replace(base, **changes)
        fields = nemo_config.write_config(config, ["x"] * config.vocab_size)
        assert fields["target"].endswith("WithPrompt") == (config.prompt is not None)
        assert read(fields, config.ctc) == config


def test_unified_contexts_are_written():
    fields = dict(att_context_style="chunked_limited_with_rc", conv_context_style="dcc")
    contexts = [[70], [1, 2, 7, 13], [0, 1, 2, 3, 4, 7, 13]]
    config = read(published(encoder={**fields, "att_chunk_context_size": contexts}), False)
    assert config.encoder.unified_contexts == ((70,), (1, 2, 7, 13), (0, 1, 2, 3, 4, 7, 13))
    assert config.encoder.convolution_context is None and not config.encoder.is_causal
    written = nemo_config.write_config(config, ["x"] * 1024)
    assert written["encoder"]["att_chunk_context_size"] == contexts
    assert written["encoder"].items() >= fields.items()
    assert read(written, False) == config


def test_prompts_that_nemo_does_not_have():
    base = read(STREAMING["nemotron-3.5-asr-streaming-0.6b"], False)
    for changes, why in (
        ({"width": 1024}, "twice the encoder's width, 2048; this model's has 1024"),
        ({"default": 0}, "named 'auto'; this model's is 0, and 'auto' is 101"),
        ({"languages": (("en", 0),)}, "named 'auto'; this model's is 101, and 'auto' is None"),
    ):
        prompt = dataclasses.replace(base.prompt, **changes)
        with pytest.raises(ValueError, match=why):
            nemo_config.write_config(dataclasses.replace(base, prompt=prompt), ["x"] * 13087)
    changes = dict(predictor=None, joint=None, durations=None, ctc=True)
    with pytest.raises(ValueError, match="no CTC model with a language prompt"):
        nemo_config.write_config(dataclasses.replace(base, **changes), ["x"] * 13087)


@pytest.mark.parametrize(
    "config",
    [
        presets.PARAKEET_TDT_0_6B_V3,
        presets.PARAKEET_TDT_CTC_110M,
        presets.PARAKEET_RNNT_1_1B,
        presets.PARAKEET_CTC_0_6B,
    ],
    ids=["tdt", "hybrid", "rnnt", "ctc"],
)
def test_what_is_written_is_read(config):
    encoder = dataclasses.replace(
        config.encoder, convolution_norm="layer_norm", attention_context=(70, 13)
    )
    features = dataclasses.replace(config.features, silence=22.0)
    for written in (config, dataclasses.replace(config, encoder=encoder, features=features)):
        pieces = [f"piece{i}" for i in range(config.vocab_size)]
        assert read(nemo_config.write_config(written, pieces), config.ctc) == written


@pytest.mark.parametrize(
    ("written", "normalize"),
    [("per_feature", None), ("NA", (0.0, 1.0)),
     ({"fixed_mean": [-9.0] * 16, "fixed_std": [3.0] * 16}, (-9.0, 3.0))],
)  # fmt: skip
def test_the_normalisation_of_features_is_read_and_written(written, normalize):
    config = read(changed_config(preprocessor__normalize=written))
    assert config.features.normalize == normalize
    fields = nemo_config.write_config(config, ["x"] * config.vocab_size)
    assert fields["preprocessor"]["normalize"] == written


def test_seconds_are_samples_rounded_down():
    """As NeMo has it, in and out."""
    changes = dict(preprocessor__window_size=0.02004, preprocessor__n_fft=None)
    assert read(changed_config(**changes)).features.window_length == 320
    for samples in (1001, 400, 441):  # int(1001 / 16000 * 16000) is 1000
        assert int(nemo_config._seconds(samples, 16000) * 16000) == samples


# As NeMo reads it


@pytest.mark.parametrize(
    "changes",
    [
        *(
            {f"preprocessor__{name}": None}
            for name in ("n_fft", "highfreq", "dither", "exact_pad", "window", "mag_power",
                         "frame_splicing", "pad_value", "log_zero_guard_value", "pad_to")
        ),
        *(
            {f"encoder__{name}": None}
            for name in ("att_context_size", "att_context_style", "conv_context_size", "feat_out",
                         "conv_norm_type", "causal_downsampling", "reduction", "global_tokens",
                         "self_attention_model", "untie_biases")
        ),
        {"encoder__att_context_size": [[-1, -1]]},
        {"encoder__att_context_size": [[-1, -1], [70, 13]]},
        {"encoder__att_context_size": [70, 13],
         "encoder__att_context_style": "chunked_limited_with_rc"},
        {"encoder__conv_context_size": [2, 2]},
        {"encoder__conv_context_style": "dcc"},
        {"encoder__att_context_probs": [1.0]},
        {"encoder__feat_out": 16},
        {"encoder__reduction": "pooling", "encoder__reduction_factor": 1},
        {"encoder__untie_biases": False},
        {"preprocessor__highfreq": 8000},
        {"preprocessor__window_size": None, "preprocessor__n_window_size": 400},
        {"preprocessor__window_stride": None, "preprocessor__n_window_stride": 160},
        {"decoding": None}, {"decoding__greedy": None}, {"decoding__durations": None},
        {"encoder__feat_in": "${model.preprocessor.features}"},
        {"decoding__durations": "${model_defaults.tdt_durations}"},
    ],
    ids=lambda changes: "-".join(changes),
)  # fmt: skip
def test_what_nemo_reads_as_the_same_is_the_same(changes):
    """Nulls that are defaults, lists of lists, samples for seconds, references: compared with
    NeMo 3.0.0, or what it cannot read, with one meaning."""
    assert read(changed_config(**changes)) == read(changed_config())


def test_nulls_that_are_no_defaults():
    """NeMo 3.0.0: no bias, no scaling, no pre-emphasis, features as they are."""
    config = read(
        changed_config(
            preprocessor__normalize=None,
            preprocessor__preemph=None,
            encoder__xscaling=None,
            encoder__use_bias=None,
        )
    )
    assert config.features.normalize == (0.0, 1.0) and config.features.preemphasis == 0
    assert not config.encoder.scale_input and not config.encoder.use_bias


def test_a_limited_context_is_read():
    for context in ([6, 2], [[6, 2], [-1, -1]]):
        config = read(changed_config(encoder__att_context_size=context))
        assert config.encoder.attention_context == (6, 2)


# What does not fit


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"target": "nemo.collections.tts.models.FastPitch"}, "FastPitch"),
        ({"encoder__n_layers": 10**9}, "n_layers is 1000000000"),
        ({"encoder__d_model": 10**12}, "d_model is 1000000000000"),
        ({"encoder__d_model": -3}, "d_model is -3"),
        ({"encoder__n_layers": "many"}, "n_layers is 'many'"),
        ({"decoder__prednet__pred_rnn_layers": 10**8}, "pred_rnn_layers"),
        ({"encoder__n_heads": 3}, "multiple of n_heads"),
        ({"encoder__subsampling": "striding"}, "dw_striding"),
        ({"encoder__subsampling_factor": 4}, "subsampling_factor is 4"),
        ({"encoder__self_attention_model": "abs_pos"}, "abs_pos"),
        ({"encoder__att_context_size": [0, 0]}, r"\[0, 0\]; two limits"),
        ({"encoder__att_context_size": [[70, -1]]}, "two limits"),
        ({"encoder__att_context_size": "all"}, "'all'"),
        ({"encoder__att_context_style": "chunked_limited"}, "chunked_limited"),
        *(
            (
                {
                    "encoder__att_context_style": "chunked_limited",
                    "encoder__att_context_size": size,
                },
                f"att_context_size has {found}; with",
            )
            for size, found in (
                ([70, 1, 0], r"\[70, 1, 0\]"),
                ([[70, 13], [71, 13]], r"\[71, 13\]"),
                ([[70, -1], [70, 13]], r"\[70, -1\]"),
                ([-1, 13], r"\[-1, 13\]"),
                ([[70, 13], 70], r"\[\.\.\., 70\]"),
                ([[70, "13"]], r"\[70, '13'\]"),
                ([], r"\[\]"),
                (None, "None"),
                ("all", "'all'"),
                ([[]], r"\[\]"),
            )
        ),
        *(
            (
                {
                    "encoder__att_context_style": "chunked_limited_with_rc",
                    "encoder__att_chunk_context_size": size,
                },
                "att_chunk_context_size is",
            )
            for size in (
                [70, 1, 0],
                [[70], [1]],
                [[70], [0], [0]],
                [[70], [], [0]],
                [[-1], [1], [0]],
                [[70], [1], ["0"]],
                "all",
            )
        ),
        ({"encoder__att_context_style": "chunked"}, "att_context_style is 'chunked'"),
        (
            {
                "encoder__att_context_style": "chunked_limited",
                "encoder__self_attention_model": "rel_pos_local_attn",
            },
            "chunked_limited",
        ),
        ({"encoder__causal_downsampling": "yes"}, "causal_downsampling is 'yes'"),
        *(
            ({"encoder__conv_context_size": size}, "conv_context_size is")
            for size in ([4, 1], [5, -1], [4], [1, 1, 2], "all", 4, [[4, 0]])
        ),
        ({"encoder__conv_context_style": "dynamic"}, "conv_context_style is 'dynamic'"),
        ({"encoder__use_bias": "maybe"}, "use_bias"),
        ({"preprocessor__normalize": "all_features"}, "all_features"),
        ({"preprocessor__normalize": {"fixed_mean": [0.0, 1.0], "fixed_std": [1.0] * 2}}, "share"),
        ({"preprocessor__normalize": {"fixed_mean": [0.0], "fixed_std": ["1"]}}, "share"),
        ({"preprocessor__log": None}, "log is None"),
        ({"preprocessor__mel_norm": None}, "mel_norm is None"),
        ({"preprocessor__highfreq": 7600}, "highfreq is 7600"),
        ({"preprocessor__log_zero_guard_value": 1e-5}, "log_zero_guard_value is 1e-05"),
        ({"preprocessor__window_size": None}, "window_size is None"),
        ({"preprocessor__window_size": 0}, "window_size is 0"),
        ({"preprocessor__n_window_size": 400}, "n_window_size are both given"),
        ({"joint__num_extra_outputs": 3}, "durations"),
        ({"joint__jointnet__activation": "tanh"}, "tanh"),
        ({"tokenizer__type": "wpe"}, "wpe"),
        ({"tokenizer__model_path": None}, "model_path"),
        ({"encoder__d_model": "${encoder.d_model}"}, "refers to itself"),
        ({"preprocessor__preemph": [1]}, "preemph"),
        ({"preprocessor__preemph": float("nan")}, "preemph"),
        ({"preprocessor__dither": {"a": 1}}, "dither"),
        ({"decoding__greedy__max_symbols": 10**30}, "max_symbols"),
        ({"encoder__d_model": 10**30}, "more than 18 digits"),
        ({"target": ["a"]}, "nothing named"),
        ({"tdt_jax": {"silence": -1}}, r"tdt_jax\.silence is -1, not decibels above 0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_configurations_that_do_not_fit(changes, why):
    with pytest.raises(ValueError, match=why):
        read(changed_config(**changes))


def test_all_problems_are_in_one_error():
    config = changed_config(
        preprocessor__n_window_size=-1,
        encoder__subsampling="striding",
        encoder__reduction="pooling",
        encoder__reduction_factor=2,
        joint__jointnet__activation="tanh",
    )
    with pytest.raises(ValueError, match=r"n_window_size.*striding.*pooling.*tanh"):
        read(config)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            {"prompt_dictionary": {}},
            "prompt_dictionary is a dict; names of slots in 0..127, 'auto'",
        ),
        ({"prompt_dictionary": None}, "prompt_dictionary is None"),
        ({"prompt_dictionary": {"auto": 0, "en": 128}}, "prompt_dictionary is a dict"),
        ({"prompt_dictionary": {"auto": 0, "en": "1"}}, "prompt_dictionary is a dict"),
        ({"prompt_dictionary": {"auto": 0, False: 1}}, "prompt_dictionary is a dict"),
        ({"num_prompts": 101}, r"slots in 0\.\.100"),
        ({"num_prompts": 10**9}, "num_prompts is 1000000000"),
        ({"initialize_prompt_feature": "yes"}, "initialize_prompt_feature is 'yes'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_prompts_that_do_not_fit(changes, why):
    config = copy.deepcopy(STREAMING["nemotron-3.5-asr-streaming-0.6b"])
    config["model_defaults"] |= changes
    with pytest.raises(ValueError, match=why):
        read(config)


def test_a_prompt_may_be_switched_off():
    """NeMo 3.0.0: the class has one only where initialize_prompt_feature is true."""
    config = copy.deepcopy(STREAMING["nemotron-3.5-asr-streaming-0.6b"])
    config["model_defaults"]["initialize_prompt_feature"] = False
    assert read(config).prompt is None
    config["model_defaults"] = STREAMING["nemotron-3.5-asr-streaming-0.6b"]["model_defaults"]
    config["target"] = published()["target"]
    assert read(config).prompt is None


def test_models_of_the_end_of_utterance_are_read():
    target = "nemo.collections.asr.models.asr_eou_models.EncDecRNNTBPEEOUModel"
    assert read(changed_config(target=target)) == read(changed_config())


def test_an_error_names_the_whole_class():
    name = "EncDecMultiTalkerRNNTBPEModel"
    target = f"nemo.collections.asr.models.multitalker_asr_models.{name}"
    with pytest.raises(ValueError, match=rf"is a {name};"):
        read(changed_config(target=target))
