"""When a speaker's turn is over: the rule, and the event that says so.

A turn is over when at least one word was decoded and

    the model emits `<EOU>`, if its tokenizer has such a label, or
    since the end of the last label it has emitted nothing but blanks for

        silence - (silence - shortest) x certainty x reach    seconds

    certainty   mean confidence of the last word's labels, from 0 to 1
    reach       mean number of frames that a blank has skipped since the last label, relative to the
                model's longest duration, from 0 to 1; an RNN-T has no durations, its reach is 1

A model that is sure of the last word and skips far ahead waits for `shortest` seconds of silence, a
model that hesitates for `silence` seconds.
"""

import math
from dataclasses import dataclass

SLACK = 1e-6  # seconds, for rounding


@dataclass(frozen=True)
class EndOfTurn:
    """The silence that ends a turn.

    Attributes:
      silence: seconds that end any turn.
      shortest: seconds that end a turn where the model is certain.

    Raises: ValueError unless 0 < shortest <= silence.
    """

    silence: float = 1.0
    shortest: float = 0.8

    def __post_init__(self):
        if not 0 < self.shortest <= self.silence < math.inf:
            raise ValueError(
                "the end of a turn needs 0 < shortest <= silence, got shortest "
                f"{self.shortest} and silence {self.silence}"
            )

    def silence_needed(self, certainty: float, reach: float) -> float:
        """Returns the seconds of silence that end a turn; both arguments are from 0 to 1."""
        return self.silence - (self.silence - self.shortest) * certainty * reach

    def is_over(self, silence: float, certainty: float, reach: float) -> bool:
        """Returns whether a turn is over after `silence` seconds without a label."""
        return silence + SLACK >= self.silence_needed(certainty, reach)


@dataclass(frozen=True)
class EndOfUtterance:
    """An utterance is over: what was said from the end of the one before on.

    Its words have been emitted before it. An utterance has at least one word.
    """

    text: str
    start: float  # seconds from the stream's start, of the first word
    end: float  # of the last word
    time: float  # seconds of audio received when the end was detected
    reason: str  # "silence", "token" (`<EOU>`) or "finish_turn" (also by `finish`)
