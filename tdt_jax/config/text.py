"""Configurations from files, from "a.b=value" and from JSON.

`override` and `from_json` go through plain values: a configuration as nested dictionaries, lists
and scalars, from which the dataclasses are built, and checked, once.
"""

import ast
import dataclasses
import importlib.util
import inspect
import json
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from tdt_jax.config.training import Config

if typing.TYPE_CHECKING:
    from _typeshed import DataclassInstance

Dataclass = TypeVar("Dataclass", bound="DataclassInstance")

KINDS = {int: "a whole number", float: "a number", bool: "true or false"}


def load(path: str | Path) -> Config:
    """Runs a configuration file and returns what its `get_config()` returns.

    Args:
      path: "FILE.py", or "FILE.py:NAME" for a file of several configurations, whose
        `get_config(NAME)` is called.

    Raises:
      ValueError: if there is no such file, or no such configuration in it.
    """
    file, name = _split_name(str(path))
    if not file.is_file():
        raise ValueError(f"no configuration file at {file}")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ValueError(f"{file} must be a Python file, whose name ends with .py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    get_config = getattr(module, "get_config", None)
    if get_config is None:
        raise ValueError(f"{file} defines no get_config()")
    arguments = (name,) if name else ()
    try:
        inspect.signature(get_config).bind(*arguments)
    except TypeError:
        raise ValueError(
            f"{file} has a single configuration: omit the name {name!r}"
            if name
            else f"{file} has several configurations: add the name of one, as in {file}:NAME"
        ) from None
    return get_config(*arguments)


def _split_name(path: str) -> tuple[Path, str]:
    """Splits "FILE.py:NAME" into file and name; the colon of a Windows drive splits nothing."""
    file, _, name = path.rpartition(":")
    return (Path(file), name) if file.endswith(".py") else (Path(path), "")


def override(config: Dataclass, *assignments: str) -> Dataclass:
    """Returns `config` with fields changed, as in "optimizer.learning_rate=1e-3".

    A value is read as the type of its field: numbers, true/false, none, words, and JSON for tuples
    and nested dataclasses ("model.durations=[0,1,2]"; "0,1,2" does as well). Of several assignments
    to a field the last one counts. What the fields must fulfill together is checked for the result
    alone.

    Raises:
      ValueError: for unknown fields, values of another type, and configurations that are refused.
    """
    if not assignments:
        return config
    plain = dataclasses.asdict(config)
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        if not separator:
            raise ValueError(f"an override must read 'a.b=value', got {assignment!r}")
        _assign(plain, type(config), path.strip(), text.strip())
    return _from_plain(plain, type(config))


def _assign(plain: dict, hint: Any, path: str, text: str) -> None:
    """Sets the field at the dotted `path` of a plain dataclass of the type `hint`."""
    value, names = plain, path.split(".")
    for depth, name in enumerate(names):
        if not isinstance(value, dict):
            raise ValueError(f"{names[depth - 1]!r} in {path!r} has no fields (it is {value!r})")
        hints = typing.get_type_hints(_without_none(hint))
        if name not in hints:
            raise ValueError(f"no field {name!r} in {path!r}; there are {', '.join(sorted(hints))}")
        parent, value, hint = value, value[name], hints[name]
    try:
        parsed = _parse(text, hint)
        checked = _from_plain(parsed, hint)
    except json.JSONDecodeError:
        kind = KINDS.get(_without_none(hint), "JSON")
        raise ValueError(f"{path} must be {kind}, got {text!r}") from None
    except (TypeError, ValueError, KeyError, SyntaxError) as error:
        raise ValueError(f"{path} cannot be {text!r}: {error}") from None
    parent[name] = dataclasses.asdict(checked) if isinstance(parsed, dict) else parsed


def _parse(text: str, hint: Any) -> Any:
    """Returns text as the plain value that `_from_plain` reads as the type `hint`."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if type(None) in options and text.lower() in ("none", "null"):
        return None
    if str in options:
        return text
    for option in options:
        if typing.get_origin(option) is tuple and text[:1] not in ("[", "("):
            if typing.get_args(option)[0] is str:
                return [part.strip() for part in text.split(",") if part.strip()]
            text = f"[{text}]"
    if text.lower() in ("true", "false"):
        text = text.lower()
    if text.startswith("("):
        return ast.literal_eval(text)
    return json.loads(text)


def to_json(config: Any) -> str:
    """Returns the configuration as JSON text."""
    return json.dumps(dataclasses.asdict(config), indent=2)


@typing.overload
def from_json(text: str) -> Config: ...
@typing.overload
def from_json(text: str, cls: type[Dataclass]) -> Dataclass: ...
def from_json(text: str, cls: Any = Config) -> Any:
    """Returns the configuration that `to_json` wrote; missing fields take their defaults.

    Raises:
      ValueError: for unknown fields, wrong types and missing fields that have no default.
    """
    plain = json.loads(text)
    if cls is Config:
        _forget_ignored(plain)
    try:
        return _from_plain(plain, cls)
    except TypeError as error:
        raise ValueError(f"not a {cls.__name__}: {error}") from None


def _forget_ignored(plain: Any) -> None:
    """Removes data.train, dev and test beside data.telephone, which old runs saved and ignored."""
    data = plain.get("data") if isinstance(plain, dict) else None
    if isinstance(data, dict) and data.get("telephone"):
        for name in ("train", "dev", "test"):
            data.pop(name, None)


def _from_plain(value: Any, hint: Any) -> Any:
    """Returns a plain value as the type `hint`: dataclasses, tuples, optionals and scalars."""
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        hint = _without_none(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        if not isinstance(value, dict):
            raise ValueError(f"{hint.__name__} needs an object, got {value!r}")
        if unknown := sorted(set(value) - set(hints)):
            raise ValueError(f"{hint.__name__} has no field {', '.join(unknown)}")
        return hint(**{name: _from_plain(item, hints[name]) for name, item in value.items()})
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"needs a list, got {value!r}")
        inner = typing.get_args(hint)
        if inner[-1] is Ellipsis:
            return tuple(_from_plain(item, inner[0]) for item in value)
        if len(inner) != len(value):
            raise ValueError(f"needs {len(inner)} values, got {value!r}")
        return tuple(_from_plain(item, each) for item, each in zip(value, inner, strict=True))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ValueError(f"needs {hint.__name__}, got {value!r}")
    return value


def _without_none(hint: Any) -> Any:
    """Returns the type T of T or `T | None`."""
    if not isinstance(hint, types.UnionType):
        return hint
    (hint,) = (option for option in typing.get_args(hint) if option is not type(None))
    return hint
