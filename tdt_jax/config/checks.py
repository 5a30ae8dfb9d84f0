"""The checks of the configurations' __post_init__.

`names` are fields as the user writes them, "encoder.width"; what follows the last dot is the
attribute of `config`. Every check raises a ValueError that names the field and its value.
"""

from collections.abc import Sequence


def require(condition: bool, message: str) -> None:
    """Raises ValueError with `message` unless the condition holds."""
    if not condition:
        raise ValueError(message)


def at_least(least: float, config: object, *names: str) -> None:
    """Requires numbers >= `least`; a field may also be None."""
    for name in names:
        value = _value(config, name)
        require(value is None or value >= least, f"{name} must be >= {least}, got {value}")


def positive(config: object, *names: str) -> None:
    """Requires numbers > 0; a field may also be None."""
    for name in names:
        value = _value(config, name)
        require(value is None or value > 0, f"{name} must be positive, got {value}")


def share(config: object, *names: str, below_one: bool = False) -> None:
    """Requires numbers in [0, 1], or in [0, 1) with `below_one`."""
    for name in names:
        value = _value(config, name)
        require(
            0 <= value <= 1 and not (below_one and value == 1),
            f"{name} must be in [0, 1{')' if below_one else ']'}, got {value}",
        )


def one_of(choices: Sequence[str], config: object, *names: str) -> None:
    """Requires one of the choices."""
    for name in names:
        value = _value(config, name)
        require(value in choices, f"{name} must be one of {', '.join(choices)}, got {value!r}")


def ordered(config: object, *names: str) -> None:
    """Requires pairs (low, high) with low <= high."""
    for name in names:
        low, high = _value(config, name)
        require(low <= high, f"{name} must be (low, high), got {(low, high)}")


def speeds(config: object, *names: str) -> None:
    """Requires tuples of rates of speed between 0.5 and 2."""
    for name in names:
        rates = _value(config, name)
        require(all(0.5 <= rate <= 2 for rate in rates), f"{name} must be in [0.5, 2], got {rates}")


def _value(config: object, name: str):
    return getattr(config, name.rpartition(".")[2])
