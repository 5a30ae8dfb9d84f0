"""What can be wrong with a recording."""

import warnings

RATES = (4_000, 768_000)  # Hz; a header with a rate outside is damaged


class AudioError(ValueError):
    """An audio file or array cannot be used; the message names it and the reason."""


class AudioWarning(UserWarning):
    """A recording has a peculiarity that its transcript does not show; the message names it."""


class UnknownFormatError(AudioError):
    """One decoder does not know a file's format; another may."""


class BrokenError(AudioError):
    """Decoding fails in the middle of a file."""

    def __init__(self, message: str, seconds: float):
        super().__init__(message)
        self.seconds = seconds  # decoded before


def check_rate(rate: int, name: str) -> None:
    """Raises AudioError for a sample rate that only a damaged header has."""
    if not RATES[0] <= rate <= RATES[1]:
        raise AudioError(f"{name} has an impossible sample rate: {rate} Hz")


def warn(message: str) -> None:
    """Issues an AudioWarning."""
    warnings.warn(message, AudioWarning, stacklevel=2)
