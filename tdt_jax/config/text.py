"""Configurations from files, from text and from JSON."""

import ast
import dataclasses
import importlib.util
import json
import types
import typing
from pathlib import Path

from tdt_jax.config.training import Config


def load(path: str | Path) -> Config:
    """Run the configuration file at `path` and return what its `get_config()` returns."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no configuration file at {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ValueError(f"{path} defines no get_config()")
    return module.get_config()


def override(config, assignment: str):
    """Return `config` with one field changed, as in "optimizer.learning_rate=1e-3".

    The text is read as the field's type: numbers, true/false, none, words, and JSON for tuples and
    nested dataclasses ("model.durations=[0,1,2]"; "0,1,2" does as well).
    """
    path, separator, text = assignment.partition("=")
    if not separator:
        raise ValueError(f"an override reads 'a.b=value', got {assignment!r}")
    return _replace(config, path.strip().split("."), text.strip(), path.strip())


def _replace(config, names: list[str], text: str, path: str):
    hints = typing.get_type_hints(type(config))
    name, *rest = names
    if name not in hints:
        raise ValueError(f"no field {name!r} in {path!r}; there are {', '.join(sorted(hints))}")
    if rest:
        inner = getattr(config, name)
        if not dataclasses.is_dataclass(inner):
            raise ValueError(f"{name!r} in {path!r} has no fields (it is {inner!r})")
        return dataclasses.replace(config, **{name: _replace(inner, rest, text, path)})
    try:
        value = _from_plain(_parse(text, hints[name]), hints[name])
    except (TypeError, ValueError, KeyError, SyntaxError) as error:
        raise ValueError(f"{path} cannot be {text!r}: {error}") from None
    return dataclasses.replace(config, **{name: value})


def _parse(text: str, hint):
    """Text to the plain (JSON-like) value that `_from_plain` reads as `hint`."""
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


def to_json(config) -> str:
    """The configuration as JSON text."""
    return json.dumps(dataclasses.asdict(config), indent=2)


def from_json(text: str, cls=Config):
    """The configuration that `to_json` wrote; missing fields take their defaults.

    Raises:
      ValueError: on unknown fields, wrong types and missing fields that have no default.
    """
    try:
        return _from_plain(json.loads(text), cls)
    except TypeError as error:
        raise ValueError(f"not a {cls.__name__}: {error}") from None


def _from_plain(value, hint):
    """A JSON value as the type `hint`: dataclasses, tuples, optionals and scalars."""
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        (hint,) = (option for option in typing.get_args(hint) if option is not type(None))
    if dataclasses.is_dataclass(hint):
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
