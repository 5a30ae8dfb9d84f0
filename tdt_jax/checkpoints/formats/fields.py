"""ConfigReader: reads a foreign configuration, and collects all that is wrong in one error."""

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


class ConfigReader:
    """Reads the fields of a nested configuration by dotted path, such as "encoder.n_layers".

    A method that reads a field of a certain type notes a value of another type as a problem and
    returns a stand-in; `raise_problems` raises all problems in one error.

    Args:
      values: the configuration, as nested dictionaries.
      name: of its file, for errors.
      nulls: what a null stands for: the value that `nulls` has for the field's path, or else the
        field's default. None: a null is a value like any other.
    """

    def __init__(self, values: Any, name: str, nulls: Mapping[str, Any] | None = None):
        if not isinstance(values, dict):
            raise ValueError(f"{name} holds a {type(values).__name__}, not fields")
        self._values, self._name, self._nulls = values, name, nulls
        self._problems: list[str] = []

    def get(self, path: str, default: Any = None) -> Any:
        """Returns a field, or `default`; references such as "${model.a}" are followed."""
        value = self._lookup(path, default)
        for _ in range(8):
            if not (isinstance(value, str) and (match := _REFERENCE.fullmatch(value))):
                if value is None and self._nulls is not None:
                    return self._nulls.get(path, default)
                return value
            value = self._lookup(match[1].removeprefix("model."), default)
        raise ValueError(f"{self._name}: {path} refers to itself")

    def size(self, path: str, kind: str, default: int | None = None) -> int:
        """Returns an integer from 1 to LIMITS[kind]."""
        value = self.get(path, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LIMITS[kind]:
            self.add_problem(f"{path} is {describe(value)}, not a number from 1 to {LIMITS[kind]}")
            return 1
        return value

    def fraction(self, path: str, default: float = 0.0) -> float:
        """Returns a number in [0, 1); a null is 0."""
        value = self.get(path, default)
        value = 0.0 if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            self.add_problem(f"{path} is {describe(value)}, not a number from 0 to 1")
            return 0.0
        return float(value)

    def flag(self, path: str, default: bool) -> bool:
        """Returns True or False."""
        value = self.get(path, default)
        if not isinstance(value, bool):
            self.add_problem(f"{path} is {describe(value)}, not true or false")
            return default
        return value

    def integers(self, path: str, default: tuple[int, ...] | None = None) -> tuple[int, ...] | None:
        """Returns a list of integers; None for a null."""
        value = self.get(path, default)
        if value is None:
            return None
        if not isinstance(value, list | tuple) or not all(type(each) is int for each in value):
            self.add_problem(f"{path} is {describe(value)}, not a list of whole numbers")
            return None
        return tuple(value)

    def require(self, path: str, *allowed: Any, default: Any = None) -> None:
        """Notes a problem unless the field has one of the `allowed` values."""
        value = self.get(path, default)
        is_plain = value is None or isinstance(value, bool | int | float | str | list)
        if not is_plain or (isinstance(value, list) and len(value) > 8) or value not in allowed:
            supported = " or ".join(map(repr, allowed))
            self.add_problem(f"{path} is {describe(value)}; {supported} is supported")

    def add_problem(self, problem: str) -> None:
        self._problems.append(problem)

    def raise_problems(self) -> None:
        """Raises ValueError, naming every problem, if there are any."""
        if self._problems:
            raise ValueError(f"{self._name}: " + "; ".join(self._problems))

    def _lookup(self, path: str, default: Any) -> Any:
        value = self._values
        for part in path.split("."):
            if not isinstance(value, dict) or part not in value:
                return default
            value = value[part]
        return value


def describe(value: Any) -> str:
    """Returns a value as it stands in an error: long ones are cut, nested ones named by type."""
    if value is None or isinstance(value, bool | float):
        return repr(value)
    if isinstance(value, int):
        return repr(value) if abs(value) < 10**18 else "a number of more than 18 digits"
    if isinstance(value, str):
        return repr(value[:80])
    if isinstance(value, list | tuple) and len(value) <= 8:
        nested = list | tuple | dict
        return f"[{', '.join('...' if isinstance(x, nested) else describe(x) for x in value)}]"
    return f"a {type(value).__name__}"
