"""Overrides from text, JSON there and back, and what each check says."""

import dataclasses
import operator

import pytest

from tdt_jax import config as configs
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


def differences(a, b, prefix=""):
    """Dotted names of the fields in which two configurations differ."""
    found = []
    for field in dataclasses.fields(a):
        x, y, name = getattr(a, field.name), getattr(b, field.name), prefix + field.name
        nested = dataclasses.is_dataclass(x) and type(x) is type(y) and name != "data.telephone"
        found += differences(x, y, name + ".") if nested else [name] * (x != y)
    return found


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("optimizer.learning_rate=2e-3", 2e-3),
        ("optimizer.learning_rate=1", 1.0),
        ("training.num_steps=7", 7),
        ("model.encoder.remat=false", False),
        ("model.ctc=True", True),
        ("optimizer.schedule=noam", "noam"),
        ("training.folder=runs/a=b", "runs/a=b"),
        ("training.folder=none", "none"),
        (" training.folder = runs/a ", "runs/a"),
        ("model.durations=none", None),
        ("model.durations=None", None),
        ("model.durations=0,1,2", (0, 1, 2)),
        ("model.durations=[0, 1, 2]", (0, 1, 2)),
        ("model.durations=(0, 1, 2)", (0, 1, 2)),
        ("model.durations=(4,)", (4,)),
        ("model.durations=4", (4,)),
        ("augment.gain=-3,3", (-3.0, 3.0)),
        ("augment.speed=[]", ()),
        ('data.train=["a.jsonl", "b.jsonl"]', ("a.jsonl", "b.jsonl")),
        ("data.telephone=none", None),
        (
            'data.telephone={"num_test": 3, "gap": [0, 1]}',
            TelephoneConfig(num_test=3, gap=(0.0, 1.0)),
        ),
        (
            'data.buckets=[{"seconds": 2, "tokens": 5, "batch_size": 3}]',
            (Bucket(2.0, 5, 3),),
        ),
    ],
)
def test_override_reads_the_type_of_the_field(assignment, expected):
    config = Config(
        data=DataConfig(telephone=TelephoneConfig()), augment=AugmentConfig(speed=(0.9,))
    )
    changed = configs.override(config, assignment)
    path = assignment.partition("=")[0].strip()
    value = operator.attrgetter(path)(changed)
    assert value == expected and type(value) is type(expected)
    if isinstance(expected, tuple):
        assert [type(item) for item in value] == [type(item) for item in expected]
    assert differences(config, changed) == [path]


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("optimizer.learning=1", r"no field 'learning' in 'optimizer.learning'.*learning_rate"),
        ("encoder.width=8", r"no field 'encoder' in 'encoder.width'.*model"),
        ("training.seed.x=1", "'seed' in 'training.seed.x' has no fields"),
        ("data.telephone.num_test=5", "'telephone' in .* has no fields .it is None"),
        ("training.num_steps", "a.b=value"),
        ("training.num_steps=1.5", "training.num_steps cannot be '1.5': needs int"),
        ("training.num_steps=true", "training.num_steps cannot be 'true': needs int"),
        ("training.num_steps=", "training.num_steps cannot be ''"),
        ("training.num_steps=none", "training.num_steps cannot be 'none'"),
        ("model.ctc=1", "model.ctc cannot be '1': needs bool"),
        ("model.ctc=yes", "model.ctc cannot be 'yes'"),
        ("optimizer.learning_rate=fast", "optimizer.learning_rate cannot be 'fast'"),
        ("optimizer.betas=0.1,0.2,0.3", "optimizer.betas cannot be .*needs 2 values"),
        ('model.durations=["a"]', "model.durations cannot be .*needs int, got 'a'"),
        ("data.buckets=[3]", "data.buckets cannot be .*Bucket needs an object, got 3"),
        ('data.buckets=[{"seconds": 1}]', "data.buckets cannot be .*'tokens'"),
        ('data.telephone={"gaps": 1}', "TelephoneConfig has no field gaps"),
        ("model.encoder.num_heads=7", r"width \(512\).*num_heads \(7\)"),
    ],
)
def test_bad_override_is_named(assignment, message):
    with pytest.raises(ValueError, match=message):
        configs.override(Config(), assignment)


FULL = Config(
    model=ModelConfig(durations=None, encoder=EncoderConfig(dropout=0.1 + 0.2)),
    optimizer=OptimizerConfig(learning_rate=1 / 3, betas=(0.5, 0.9)),
    augment=AugmentConfig(speed=(0.9, 1.1)),
    data=DataConfig(
        train=("a.jsonl", 'quo"te ü.jsonl'),
        telephone=TelephoneConfig(curriculum=((0, 0), (500, 1))),
        buckets=(Bucket(2.0, 8, 4), Bucket(4.5, 16, 2)),
    ),
)


@pytest.mark.parametrize("config", [Config(), FULL], ids=["defaults", "full"])
def test_json_there_and_back_is_exact(config):
    back = configs.from_json(configs.to_json(config))
    assert back == config and repr(back) == repr(config)  # repr: a tuple of a tuple, not a list
    assert hash(back) == hash(config)  # static arguments of jitted functions


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"models": {}}', "Config has no field models"),
        ('{"model": {"encoder": {"depth": 1}}}', "EncoderConfig has no field depth"),
        ('{"model": {"dtype": 3}}', "needs str, got 3"),
        ('{"data": {"buckets": [{"seconds": 1.0}]}}', "tokens"),
        ('{"model": {"durations": 3}}', "needs a list, got 3"),
        ("[]", "Config needs an object"),
        ('{"model"', "delimiter|Expecting"),
    ],
)
def test_bad_json_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        configs.from_json(text)


@pytest.mark.parametrize(
    ("cls", "fields", "told"),
    [
        (FeatureConfig, dict(num_mels=0), ["num_mels", "0"]),
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
        (Bucket, dict(seconds=0.0, tokens=1, batch_size=2), ["0.0", "1", "2"]),
        (TelephoneConfig, dict(kinds=()), ["telephone.kinds"]),
        (TelephoneConfig, dict(phrase_probability=1.5), ["phrase_probability", "1.5"]),
        (TelephoneConfig, dict(gap=(-0.5, 0.5)), ["telephone.gap", "(-0.5, 0.5)"]),
        (TelephoneConfig, dict(level=(-3.0, 3.0)), ["telephone.level", "(-3.0, 3.0)"]),
        (TelephoneConfig, dict(snr=(9.0, 8.0)), ["telephone.snr", "(9.0, 8.0)"]),
        (TelephoneConfig, dict(num_test=-1), ["telephone.num_test", "-1"]),
        (TelephoneConfig, dict(speed=()), ["telephone.speed", "()"]),
        (DataConfig, dict(buckets=()), ["data.buckets"]),
        (DataConfig, dict(buckets=(Bucket(2, 1, 1), Bucket(1, 1, 1))), ["buckets", "[2, 1]"]),
        (TrainingConfig, dict(num_steps=0), ["training.num_steps", "0"]),
        (TrainingConfig, dict(keep=0), ["training.keep", "0"]),
        (Config, dict(loss=LossConfig(ctc_weight=0.3)), ["ctc_weight", "0.3", "model.ctc"]),
    ],
)
def test_bad_values_are_named(cls, fields, told):
    with pytest.raises(ValueError) as caught:
        cls(**fields)
    assert all(each in str(caught.value) for each in told), caught.value


def test_derived_values():
    config = ModelConfig(vocab_size=50)
    assert config.blank == 50 and config.seconds_per_frame == 0.08


def test_load_runs_the_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from tdt_jax.config import Config, TrainingConfig\n"
        "def get_config():\n"
        "    return Config(training=TrainingConfig(seed=12))\n"
    )
    assert configs.load(path) == configs.load(str(path)) == Config(training=TrainingConfig(seed=12))
    with pytest.raises(ValueError, match=r"absent\.py"):
        configs.load(tmp_path / "absent.py")
    path.write_text("config = 1\n")
    with pytest.raises(ValueError, match=r"mine\.py defines no get_config"):
        configs.load(path)
