"""Foreign configurations: fields, references, nulls, and all problems in one error."""

import pytest

from tdt_jax.checkpoints.formats.fields import ConfigReader, describe


def test_fields_and_references():
    values = {"model": 1, "a": {"b": 3, "c": "${model.a.b}", "d": "${a.c}", "e": "${a.e}"}}
    reader = ConfigReader(values, "x.yaml")
    assert reader.get("a.b") == reader.get("a.c") == reader.get("a.d") == 3
    assert reader.get("a.x") is None and reader.get("a.x", 5) == reader.get("model.x", 5) == 5
    with pytest.raises(ValueError, match=r"x\.yaml: a\.e refers to itself"):
        reader.get("a.e")
    with pytest.raises(ValueError, match=r"x\.yaml holds a list, not fields"):
        ConfigReader([], "x.yaml")


def test_nulls():
    values = {"a": None, "b": None}
    assert ConfigReader(values, "x").get("a", 3) is None
    reader = ConfigReader(values, "x", nulls={"b": 7})
    assert reader.get("a", 3) == 3 and reader.get("b", 3) == 7


def test_all_problems_are_in_one_error():
    values = {"n": 3, "p": 0.5, "f": True, "i": [1, 2], "x": "10", "y": 10**30, "z": [0] * 9}
    reader = ConfigReader(values, "x.json")
    assert reader.size("n", "small") == 3 and reader.size("m", "small", 4) == 4
    assert reader.fraction("p") == 0.5 and reader.flag("f", False) is True
    assert reader.integers("i") == (1, 2) and reader.integers("m") is None
    reader.require("n", 2, 3)
    reader.raise_problems()
    for problem in (
        lambda: reader.size("x", "small"),
        lambda: reader.size("y", "width"),
        lambda: reader.size("f", "small"),
        lambda: reader.fraction("n"),
        lambda: reader.flag("n", True),
        lambda: reader.integers("x"),
        lambda: reader.require("z", [0] * 9),
    ):
        problem()
    with pytest.raises(ValueError) as caught:
        reader.raise_problems()
    assert str(caught.value) == (
        "x.json: x is '10', not a number from 1 to 4096; "
        "y is a number of more than 18 digits, not a number from 1 to 65536; "
        "f is True, not a number from 1 to 4096; n is 3, not a number from 0 to 1; "
        "n is 3, not true or false; x is '10', not a list of whole numbers; "
        "z is a list; [0, 0, 0, 0, 0, 0, 0, 0, 0] is supported"
    )


def test_values_in_errors_are_short():
    endless = []
    endless.append(endless)
    assert describe([1, endless, "a" * 100]) == f"[1, ..., {'a' * 80!r}]"
    assert describe({"a": endless}) == "a dict" and describe(None) == "None"
