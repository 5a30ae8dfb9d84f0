"""The public API: what it names, and where it is documented."""

import ast
import dataclasses
import importlib.util
import re
import types
import typing

import pytest
from paths import ROOT

import tdt_jax as tdt
from tdt_jax import presets

API = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
# Names that users have: none of them goes.
PUBLIC = """
Advice AdviceWarning Alignment AudioError AudioWarning AugmentConfig Bucket Config DataConfig
DecoderState EncoderConfig EncoderState EndOfTurn EndOfUtterance FeatureConfig FeatureState
Hypothesis JointConfig LossConfig ModelConfig Occupancy OptimizerConfig PredictorConfig PromptConfig
Recogniser Segment Stream Streams TelephoneConfig Token TokenizerConfig TrainingConfig Transcript
Transducer Word align ctc_decode decode_chunk encode encode_chunk export greedy_decode load log_mel
log_mel_chunk occupancy override rnnt_loss save start_decoding start_encoding start_log_mel
tdt_loss transcribe transducer_loss with_attention_context with_language with_lookahead
""".split()
CONFIG = """
AugmentConfig Bucket Config DataConfig EncoderConfig FeatureConfig JointConfig LossConfig
ModelConfig OptimizerConfig PredictorConfig PromptConfig REMAT_POLICIES TelephoneConfig
TokenizerConfig TrainingConfig check_durations from_json load override to_json
""".split()
PRESETS = """
LARGE MEDIUM MICRO PARAKEET_CTC_0_6B PARAKEET_CTC_1_1B PARAKEET_RNNT_0_6B PARAKEET_RNNT_1_1B
PARAKEET_TDT_0_6B_V2 PARAKEET_TDT_0_6B_V3 PARAKEET_TDT_1_1B PARAKEET_TDT_CTC_110M SMALL TINY
XLARGE XXLARGE fine_tuning
""".split()
DOCUMENTED = re.findall(r"^::: (\S+)$", API, re.M)


@pytest.fixture(scope="module")
def tables():
    """The module that fills in the tables of the pages."""
    path = ROOT / "docs" / "hooks" / "tables.py"
    spec = importlib.util.spec_from_file_location("tables", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def resolve(name: str):
    """Returns what a dotted name below tdt_jax means."""
    value = tdt
    for part in name.split(".")[1:]:
        value = getattr(value, part)
    return value


def test_all_names_what_is_imported():
    """Nothing is public by accident, and nothing is missing."""
    tree = ast.parse((ROOT / "tdt_jax" / "__init__.py").read_text(encoding="utf-8"))
    imports = (node for node in tree.body if isinstance(node, ast.ImportFrom))
    imported = {alias.asname or alias.name for node in imports for alias in node.names}
    assert len(tdt.__all__) == len(set(tdt.__all__))
    assert set(tdt.__all__) - {"__version__"} == imported


def test_no_public_name_goes():
    assert set(PUBLIC) <= set(tdt.__all__)
    assert set(CONFIG) <= set(tdt.config.__all__)
    assert set(PRESETS) <= set(vars(presets))
    assert tdt.sharding.on_all is tdt.sharding.replicated


@pytest.mark.parametrize("name", tdt.__all__)
def test_public_name_is_documented(name):
    if isinstance(getattr(tdt, name), types.ModuleType):
        assert f"tdt_jax.{name}" in API
    elif name != "__version__":
        assert f"tdt_jax.{name}" in DOCUMENTED


@pytest.mark.parametrize("name", tdt.config.__all__)
def test_config_name_is_documented(name):
    assert {f"tdt_jax.config.{name}", f"tdt_jax.{name}"} & set(DOCUMENTED)


def test_presets_are_documented(tables, monkeypatch):
    monkeypatch.setattr(tables, "_size", lambda config: "")  # which takes seconds
    assert "<!-- presets -->" in API
    table = tables.presets()
    for name, value in vars(presets).items():
        if isinstance(value, tdt.ModelConfig) and not name.startswith("_"):
            assert f"`{name}`" in table
        elif isinstance(value, types.FunctionType) and not name.startswith("_"):
            assert f"tdt_jax.presets.{name}" in DOCUMENTED


@pytest.mark.parametrize("name", DOCUMENTED)
def test_documented_name_exists(name):
    if name.startswith("tdt_jax.cluster."):
        pytest.importorskip("ray", reason="needs the extra ray")
    assert not isinstance(resolve(name), types.ModuleType)
    assert DOCUMENTED.count(name) == 1


def test_fields_of_the_configuration_are_documented(tables):
    """Every field of every part is in the table, with its default."""
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    sections = tables.on_page_markdown(page).partition("## All fields")[2].split("\n### ")[1:]
    rows = {section.partition("\n")[0]: section for section in sections}
    assert len(rows) == 14

    def check(cls, prefix=""):
        hints = typing.get_type_hints(cls)
        for field in dataclasses.fields(cls):
            parts = [hints[field.name], *typing.get_args(hints[field.name])]
            inner = [part for part in parts if dataclasses.is_dataclass(part)]
            if field.default_factory is dataclasses.MISSING:
                assert f"| `{field.name}` |" in rows[prefix]
            for part in inner:
                name = f"{prefix}.{field.name}".lstrip(".")
                check(part, name if name in rows else f"{name}, each")

    check(tdt.Config)
    assert "| `omega` | `0.1` |" in rows["loss"]
    assert "| `seconds` | (required) |" in rows["data.buckets, each"]


def test_comments_are_meanings(tables):
    @dataclasses.dataclass
    class Part:
        """A part."""

        one: int = 1  # of two
        # Longer than
        # a line.
        two: str = "#"
        three: float = 0.5
        """Below."""
        four: bool = True

        def method(self):
            pass  # nothing

    assert tables._comments(Part) == {
        "one": "of two",
        "two": "Longer than a line.",
        "three": "Below.",
    }
