"""Configurations from files, overrides from text, and JSON."""

import dataclasses
import json
import operator

import pytest
from paths import ROOT

from tdt_jax import config as configs
from tdt_jax.config import (
    AugmentConfig,
    Bucket,
    Config,
    DataConfig,
    EncoderConfig,
    ModelConfig,
    OptimizerConfig,
    TelephoneConfig,
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
        ("model.encoder.chunked_contexts=[[6,2],[6,0]]", ((6, 2), (6, 0))),
        ("model.encoder.unified_contexts=[[70],[1,2],[0]]", ((70,), (1, 2), (0,))),
        ("model.encoder.convolution_context=8,0", (8, 0)),
        ("model.encoder.causal_subsampling=true", True),
        ("augment.gain=-3,3", (-3.0, 3.0)),
        ("augment.speed=[]", ()),
        ('tokenizer.model=["a"]', '["a"]'),
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
        ("training.num_steps=", "training.num_steps must be a whole number, got ''"),
        ("training.num_steps=none", "training.num_steps must be a whole number, got 'none'"),
        ("model.ctc=1", "model.ctc cannot be '1': needs bool"),
        ("model.ctc=yes", "model.ctc must be true or false, got 'yes'"),
        ("optimizer.learning_rate=fast", "optimizer.learning_rate must be a number, got 'fast'"),
        ("optimizer.betas=0.1,0.2,0.3", "optimizer.betas cannot be .*needs 2 values"),
        ('model.durations=["a"]', "model.durations cannot be .*needs int, got 'a'"),
        ("data.buckets=[3]", "data.buckets cannot be .*Bucket needs an object, got 3"),
        ('data.buckets=[{"seconds": 1}]', "data.buckets cannot be .*'tokens'"),
        ('data.telephone={"gaps": 1}', "TelephoneConfig has no field gaps"),
        ("model.encoder.chunked_contexts=[[6]]", r"chunked_contexts cannot be .*needs 2 values"),
        ("model.encoder.chunked_contexts=6,2", "chunked_contexts cannot be .*needs a list"),
        ("model.encoder.num_heads=7", r"width \(512\).*num_heads \(7\)"),
    ],
)
def test_bad_override_is_named(assignment, message):
    with pytest.raises(ValueError, match=message):
        configs.override(Config(), assignment)


def test_overrides_are_checked_together():
    """In any order; a composed task beside a manifest is refused with what to do."""
    config = configs.load(ROOT / "configs" / "quickstart.py")
    for name in ("train", "dev", "test"):
        with pytest.raises(
            ValueError, match=rf"data\.{name}=mine\.jsonl .*--set data.telephone=none"
        ):
            configs.override(config, f"data.{name}=mine.jsonl")
    both = "data.telephone=none", 'data.train=["mine.jsonl", "yours.jsonl"]'
    for assignments in (both, both[::-1]):
        data = configs.override(config, *assignments).data
        assert (data.telephone, data.train) == (None, ("mine.jsonl", "yours.jsonl"))
    changed = configs.override(config, "data.telephone={}", "data.telephone.num_test=3")
    assert changed.data.telephone == TelephoneConfig(num_test=3)
    changed = configs.override(config, "model.encoder.width=30", "model.encoder.num_heads=3")
    assert differences(config, changed) == ["model.encoder.width", "model.encoder.num_heads"]
    assert configs.override(config, "training.seed=1", "training.seed=2").training.seed == 2
    assert configs.override(config) is config


FULL = Config(
    model=ModelConfig(durations=None, encoder=EncoderConfig(dropout=0.1 + 0.2)),
    optimizer=OptimizerConfig(learning_rate=1 / 3, betas=(0.5, 0.9)),
    augment=AugmentConfig(speed=(0.9, 1.1)),
    data=DataConfig(
        train=("a.jsonl", 'quo"te ü.jsonl'),
        buckets=(Bucket(2.0, 8, 4), Bucket(4.5, 16, 2)),
    ),
)
CAUSAL = Config(
    model=ModelConfig(
        encoder=EncoderConfig(
            chunked_contexts=((6, 2), (6, 0)), convolution_context=(8, 0), causal_subsampling=True
        )
    )
)
UNIFIED = Config(
    model=ModelConfig(encoder=EncoderConfig(unified_contexts=((70,), (1, 2), (0, 13))))
)
COMPOSED = Config(data=DataConfig(telephone=TelephoneConfig(curriculum=((0, 0), (500, 1)))))


@pytest.mark.parametrize(
    "config",
    [Config(), FULL, COMPOSED, CAUSAL, UNIFIED],
    ids=["defaults", "full", "composed", "causal", "unified"],
)
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


def test_a_run_that_ignored_its_manifest_is_read():
    """Earlier versions saved data.train beside data.telephone, and trained on the latter."""
    plain = json.loads(configs.to_json(COMPOSED))
    plain["data"] |= {"train": ["a.jsonl"], "dev": ["b.jsonl"]}
    assert configs.from_json(json.dumps(plain)) == COMPOSED


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


def test_load_takes_the_name_of_a_configuration(tmp_path):
    path = tmp_path / "several.py"
    path.write_text(
        "from tdt_jax.config import Config, TrainingConfig\n"
        "def get_config(name):\n"
        "    return Config(training=TrainingConfig(folder=name))\n"
    )
    assert configs.load(f"{path}:a_1").training.folder == "a_1"
    with pytest.raises(ValueError, match=r"several configurations: .* as in .*several\.py:NAME"):
        configs.load(path)
    path.write_text(path.read_text().replace("(name)", "()"))
    with pytest.raises(ValueError, match=r"a single configuration: omit the name 'a_1'"):
        configs.load(f"{path}:a_1")
    (tmp_path / "text.txt").write_text("")
    with pytest.raises(ValueError, match=r"text\.txt must be a Python file"):
        configs.load(tmp_path / "text.txt")


@pytest.mark.parametrize("name", ["", ":b"])
def test_a_drive_is_no_name(name):
    """On Windows; here there is no such file, and the message says which was meant."""
    with pytest.raises(ValueError, match=r"no configuration file at C:.configs.mine\.py$"):
        configs.load(rf"C:\configs\mine.py{name}")
