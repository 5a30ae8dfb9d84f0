"""Every check of the configurations names the field and its value."""

import pytest

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
)

CHUNKED = dict(chunked_contexts=((6, 2),))
UNIFIED = dict(unified_contexts=((70,), (1,), (0,)))


@pytest.mark.parametrize(
    ("cls", "fields", "named"),
    [
        (FeatureConfig, dict(num_mels=0), ["num_mels", "0"]),
        (FeatureConfig, dict(silence=0.0), ["features.silence", "0.0"]),
        (FeatureConfig, dict(sample_rate=0), ["features.sample_rate", "0"]),
        (FeatureConfig, dict(hop_length=500), ["hop_length", "500", "400", "512"]),
        (FeatureConfig, dict(window_length=600), ["window_length", "600", "512"]),
        (EncoderConfig, dict(width=10, num_heads=4), ["width", "10", "num_heads", "4"]),
        (EncoderConfig, dict(width=15, num_heads=5), ["width", "even", "15"]),
        (EncoderConfig, dict(num_heads=0), ["num_heads", "0"]),
        (EncoderConfig, dict(kernel_size=8), ["kernel_size", "8"]),
        (EncoderConfig, dict(kernel_size=-1), ["kernel_size", "-1"]),
        (EncoderConfig, dict(num_layers=0), ["num_layers", "0"]),
        (EncoderConfig, dict(subsampling_channels=0), ["subsampling_channels", "0"]),
        (EncoderConfig, dict(dropout=1.0), ["encoder.dropout", "1.0"]),
        (EncoderConfig, dict(attention_dropout=-0.1), ["attention_dropout", "-0.1"]),
        (EncoderConfig, dict(attention_context=(0, 0)), ["attention_context", "(0, 0)"]),
        (EncoderConfig, dict(attention_context=(-1, 5)), ["attention_context", "(-1, 5)"]),
        (EncoderConfig, dict(chunked_contexts=((6, 2), (7, 2))), ["chunked_contexts", "(7, 2)"]),
        (EncoderConfig, dict(chunked_contexts=((-3, 2),)), ["chunked_contexts", "(-3, 2)"]),
        (EncoderConfig, dict(chunked_contexts=((6, -1),)), ["chunked_contexts", "(6, -1)"]),
        (EncoderConfig, dict(chunked_contexts=((6, -2),)), ["chunked_contexts", "(6, -2)"]),
        (EncoderConfig, dict(unified_contexts=((70,), (1, 2))), ["unified_", "((70,), (1, 2))"]),
        (EncoderConfig, dict(unified_contexts=((70,), (1,), ())), ["((70,), (1,), ())"]),
        (EncoderConfig, dict(unified_contexts=((70,), (0,), (1,))), ["((70,), (0,), (1,))"]),
        (EncoderConfig, dict(unified_contexts=((-1,), (1,), (1,))), ["((-1,), (1,), (1,))"]),
        (EncoderConfig, dict(unified_contexts=((9,), (1,), (2, -1))), ["((9,), (1,), (2, -1))"]),
        (EncoderConfig, dict(unified_contexts=((9,),) * 4), ["((9,), (9,), (9,), (9,))"]),
        (
            EncoderConfig,
            dict(**CHUNKED, attention_context=(4, 4)),
            ["only one", "(4, 4)", "(6, 2)"],
        ),
        (
            EncoderConfig,
            dict(**CHUNKED, **UNIFIED),
            ["only one", "((6, 2),)", "((70,), (1,), (0,))"],
        ),
        (EncoderConfig, dict(**UNIFIED, attention_context=(4, 4)), ["only one", "(4, 4)", "(70,)"]),
        (EncoderConfig, dict(convolution_context=(8, 1)), ["convolution_context", "(8, 1)", "= 8"]),
        (EncoderConfig, dict(convolution_context=(9, -1)), ["convolution_context", "(9, -1)"]),
        (EncoderConfig, dict(convolution_context=(4, 3)), ["convolution_context", "(4, 3)"]),
        (EncoderConfig, dict(convolution_norm="batch"), ["convolution_norm", "batch"]),
        (ModelConfig, dict(predictor=None), ["predictor", "joint"]),
        (ModelConfig, dict(predictor=None, joint=None), ["ctc", "durations", "(0, 1, 2, 3, 4)"]),
        (ModelConfig, dict(max_symbols=0), ["max_symbols", "0"]),
        (PredictorConfig, dict(num_layers=0), ["predictor.num_layers", "0"]),
        (PredictorConfig, dict(width=0), ["predictor.width", "0"]),
        (PredictorConfig, dict(dropout=1.5), ["predictor.dropout", "1.5"]),
        (JointConfig, dict(width=-3), ["joint.width", "-3"]),
        (JointConfig, dict(dropout=-1.0), ["joint.dropout", "-1.0"]),
        (ModelConfig, dict(vocab_size=0), ["vocab_size", "0"]),
        (ModelConfig, dict(piece_seconds=0.5), ["model.piece_seconds", "0.5"]),
        (ModelConfig, dict(dtype="float16"), ["dtype", "float16"]),
        (ModelConfig, dict(durations=()), ["durations", "()"]),
        (ModelConfig, dict(durations=(0,)), ["durations", "(0,)"]),
        (ModelConfig, dict(durations=(-1, 1)), ["durations", "(-1, 1)"]),
        (ModelConfig, dict(durations=(0, 2, 2)), ["durations", "(0, 2, 2)"]),
        (LossConfig, dict(omega=1.1), ["loss.omega", "1.1"]),
        (LossConfig, dict(ctc_weight=-0.5), ["loss.ctc_weight", "-0.5"]),
        (LossConfig, dict(sigma=-1.0), ["loss.sigma", "-1.0"]),
        (LossConfig, dict(fastemit=float("nan")), ["loss.fastemit", "nan"]),
        (OptimizerConfig, dict(schedule="linear"), ["schedule", "linear", "cosine", "noam"]),
        (OptimizerConfig, dict(learning_rate=0.0), ["learning_rate", "0.0"]),
        (OptimizerConfig, dict(warmup_steps=0), ["warmup_steps", "0"]),
        (OptimizerConfig, dict(clip_norm=0.0), ["clip_norm", "0.0"]),
        (OptimizerConfig, dict(ema_decay=1.0), ["ema_decay", "1.0"]),
        (AugmentConfig, dict(freq_masks=-1), ["freq_masks", "-1"]),
        (AugmentConfig, dict(time_width=1.5), ["time_width", "1.5"]),
        (AugmentConfig, dict(noise_probability=2.0), ["noise_probability", "2.0"]),
        (AugmentConfig, dict(silence_probability=-1.0), ["silence_probability", "-1.0"]),
        (AugmentConfig, dict(noise_snr=(20.0, 10.0)), ["noise_snr", "(20.0, 10.0)"]),
        (AugmentConfig, dict(gain=(3.0, -3.0)), ["gain", "(3.0, -3.0)"]),
        (AugmentConfig, dict(speed=(0.4,)), ["speed", "0.4"]),
        (TokenizerConfig, dict(kind="bpe"), ["kind", "bpe", "sentencepiece"]),
        (Bucket, dict(seconds=0.0, tokens=1, batch_size=2), ["bucket.seconds", "0.0"]),
        (Bucket, dict(seconds=1.0, tokens=1, batch_size=-2), ["bucket.batch_size", "-2"]),
        (TelephoneConfig, dict(kinds=()), ["telephone.kinds"]),
        (TelephoneConfig, dict(phrase_probability=1.5), ["phrase_probability", "1.5"]),
        (TelephoneConfig, dict(gap=(0.3, 0.1)), ["telephone.gap", "(0.3, 0.1)"]),
        (TelephoneConfig, dict(gap=(-0.5, 0.5)), ["telephone.gap", "(-0.5, 0.5)"]),
        (TelephoneConfig, dict(level=(-3.0, 3.0)), ["telephone.level", "(-3.0, 3.0)"]),
        (TelephoneConfig, dict(snr=(9.0, 8.0)), ["telephone.snr", "(9.0, 8.0)"]),
        (TelephoneConfig, dict(num_test=-1), ["telephone.num_test", "-1"]),
        (TelephoneConfig, dict(speed=()), ["telephone.speed", "()"]),
        (DataConfig, dict(buckets=()), ["data.buckets"]),
        (DataConfig, dict(buckets=(Bucket(2, 1, 1), Bucket(1, 1, 1))), ["buckets", "[2, 1]"]),
        (DataConfig, dict(train=("a", "b"), telephone=TelephoneConfig()), ["train=a,b", "none"]),
        (TrainingConfig, dict(num_steps=0), ["training.num_steps", "0"]),
        (TrainingConfig, dict(keep=0), ["training.keep", "0"]),
        (Config, dict(loss=LossConfig(ctc_weight=0.3)), ["ctc_weight", "0.3", "model.ctc"]),
    ],
)
def test_bad_values_are_named(cls, fields, named):
    with pytest.raises(ValueError) as caught:
        cls(**fields)
    assert all(each in str(caught.value) for each in named), caught.value


def test_derived_values():
    config = ModelConfig(vocab_size=50)
    assert config.blank == 50 and config.seconds_per_frame == 0.08


CAUSAL = dict(
    chunked_contexts=((70, 13), (70, 6), (70, 1), (70, 0)),
    convolution_context=(8, 0),
    causal_subsampling=True,
)


def test_an_encoder_is_causal_where_nothing_but_chunks_looks_ahead():
    assert EncoderConfig(**CAUSAL).is_causal
    for changes in (
        dict(chunked_contexts=()),
        dict(convolution_context=None),
        dict(convolution_context=(7, 1)),
        dict(causal_subsampling=False),
        dict(chunked_contexts=(), **UNIFIED),
    ):
        assert not EncoderConfig(**{**CAUSAL, **changes}).is_causal
    assert not EncoderConfig().is_causal


def test_sides_of_the_convolution():
    assert EncoderConfig().convolution_sides == (4, 4)
    assert EncoderConfig(convolution_context=(8, 0)).convolution_sides == (8, 0)
    assert EncoderConfig(convolution_context=(0, 0), kernel_size=1).convolution_sides == (0, 0)


def test_lookaheads_are_seconds():
    config = ModelConfig(encoder=EncoderConfig(**CAUSAL))
    assert config.lookaheads == pytest.approx((1.04, 0.48, 0.08, 0.0))
    assert ModelConfig().lookaheads == ()
    assert ModelConfig(encoder=EncoderConfig(**UNIFIED)).lookaheads == ()
