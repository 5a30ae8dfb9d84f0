"""Reading a foreign configuration: fields by dotted name, checked, with what is amiss collected."""

import re
from collections.abc import Mapping
from typing import Any

LIMITS = {  # far above any recogniser; a hostile file must not make us allocate or loop
    "layers": 512,
    "width": 65536,
    "vocabulary": 1 << 20,
    "small": 4096,
}
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")


def shown(value: Any) -> str:
    """A value in an error: scalars as they are, the rest by its type (it may be endless)."""
    if value is None or isinstance(value, bool | float):
        return repr(value)
    if isinstance(value, int):
        return repr(value) if abs(value) < 10**18 else "a number of more than 18 digits"
    if isinstance(value, str):
        return repr(value[:80])
    if isinstance(value, list | tuple) and len(value) <= 8:
        return (
            "["
            + ", ".join(
                shown(x) if not isinstance(x, list | tuple | dict) else "..." for x in value
            )
            + "]"
        )
    return f"a {type(value).__name__}"


class ConfigReader:
    """A nested configuration; call `finish` when all is read.

    Args:
      values: the configuration.
      name: of its file, for errors.
      nulls: None: a null is a value as any other. Else a null is the field's default, or what is
        given here by the field's path.
    """

    def __init__(self, values: dict, name: str, nulls: Mapping[str, Any] | None = None):
        if not isinstance(values, dict):
            raise ValueError(f"{name} holds a {type(values).__name__}, not fields")
        self._values, self._name, self._nulls = values, name, nulls
        self._problems: list[str] = []

    def get(self, path: str, default: Any = None) -> Any:
        """The field at "a.b", or `default`; references such as "${model.a}" are followed."""
        value = self._find(path, default)
        for _ in range(8):
            if not (isinstance(value, str) and (match := _REFERENCE.fullmatch(value))):
                if value is None and self._nulls is not None:
                    return self._nulls.get(path, default)
                return value
            value = self._find(match[1].removeprefix("model."), default)
        raise ValueError(f"{self._name}: {path} refers to itself")

    def _find(self, path: str, default: Any) -> Any:
        value = self._values
        for part in path.split("."):
            if not isinstance(value, dict) or part not in value:
                return default
            value = value[part]
        return value

    def size(self, path: str, kind: str, default: int | None = None) -> int:
        """A whole number from 1 to the limit of its kind."""
        value = self.get(path, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LIMITS[kind]:
            self._problems.append(
                f"{path} is {shown(value)}, not a number from 1 to {LIMITS[kind]}"
            )
            return 1
        return value

    def rate(self, path: str, default: float = 0.0) -> float:
        """A number in [0, 1)."""
        value = self.get(path, default)
        value = 0.0 if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            self._problems.append(f"{path} is {shown(value)}, not a number from 0 to 1")
            return 0.0
        return float(value)

    def flag(self, path: str, default: bool) -> bool:
        value = self.get(path, default)
        if not isinstance(value, bool):
            self._problems.append(f"{path} is {shown(value)}, not true or false")
            return default
        return value

    def require(self, path: str, *allowed: Any, default: Any = None) -> None:
        """The field is one of those that the model here can be."""
        value = self.get(path, default)
        is_plain = value is None or isinstance(value, bool | int | float | str | list)
        if not is_plain or (isinstance(value, list) and len(value) > 8) or value not in allowed:
            known = " or ".join(map(repr, allowed))
            self._problems.append(f"{path} is {shown(value)}; {known} is supported")

    def whole_numbers(self, path: str, default: Any = None) -> tuple[int, ...] | None:
        value = self.get(path, default)
        if value is None:
            return None
        if not isinstance(value, list | tuple) or not all(type(each) is int for each in value):
            self._problems.append(f"{path} is {shown(value)}, not a list of whole numbers")
            return None
        return tuple(value)

    def refuse(self, problem: str) -> None:
        self._problems.append(problem)

    def finish(self) -> None:
        """Raise ValueError if anything was amiss, with all of it."""
        if self._problems:
            raise ValueError(f"{self._name}: " + "; ".join(self._problems))
