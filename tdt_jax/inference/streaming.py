"""Stream: transcribes audio while it comes.

A causal model encodes every chunk once (`cached.py`), any other one encodes windows
(`windowed.py`). `stream_words.py` makes words of the labels, for both.
"""

import os
from collections.abc import Iterable, Sequence
from typing import Any

from tdt_jax.advice.guide import LM_WEIGHT
from tdt_jax.advice.phrases import Phrase
from tdt_jax.audio.reading import as_samples
from tdt_jax.inference.advised import guide_for, with_prompt
from tdt_jax.inference.cached import Cached
from tdt_jax.inference.end_of_turn import EndOfTurn, EndOfUtterance
from tdt_jax.inference.stream_words import LiveText, StreamedWord, StreamWords
from tdt_jax.inference.windowed import Windowed
from tdt_jax.recogniser import Recogniser, with_lookahead


class Stream(LiveText):
    """Transcribes a stream of samples word by word.

        stream = Stream(recogniser)
        for samples in blocks:
            for word in stream.push(samples):
                ...
        for word in stream.finish():
            ...

    A word is emitted when it is certain, and is never taken back: the next has begun, a second of
    silence follows, its turn is over, or the stream ends. A word of more than two seconds, such as
    a telephone number, is emitted in parts. The sizes of the blocks make no difference. Memory is
    bounded, but for the text.

    A causal model (`config.encoder.is_causal`) encodes each chunk once; the labels are those of the
    whole audio in the same context. Any other model encodes a window of audio again for each chunk.

    Attributes:
      text: all words emitted.
      pending: the words decoded but not certain yet; `text` + `pending` is everything decoded.
      seconds: length of the audio decoded.
      language: the one that tags have named most often; None without any.
      end_of_turn: the rule of the argument; may be set at any time.
      latency: seconds from a sound to its decoding, without computation. With a causal model:
        look-ahead + half a window of the features (12.5 ms); otherwise: chunk + right.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        *,
        lookahead: float | None = None,
        chunk: float | None = None,
        left: float | None = None,
        right: float | None = None,
        boost: Iterable[Phrase] | None = None,
        allowed: str | Iterable[str] | None = None,
        language: str | Sequence[str] | None = None,
        lm: str | os.PathLike | None = None,
        lm_weight: float = LM_WEIGHT,
        keep_tags: bool = False,
        end_of_turn: EndOfTurn | None = None,
    ):
        """Starts a stream. All lengths are rounded to whole frames.

        Args:
          recogniser: with a transducer.
          lookahead: of a causal model, seconds: one of `recogniser.config.lookaheads`. None: the
            first of them.
          chunk: of another model, seconds that are decoded at a time; None: 1.6. In a model with
            `encoder.unified_contexts` chunk, left and right are of these; None: the largest.
          left: seconds that the encoder sees before a chunk; None: 8, or less for a model trained
            on shorter audio than left + chunk + right.
          right: seconds that it sees after a chunk; None: 1.6.
          boost, allowed, language, lm, lm_weight: advice, as of `tdt_jax.transcribe`.
          keep_tags: as of `tdt_jax.transcribe`.
          end_of_turn: the rule by which the stream detects that a turn is over. The words of the
            turn are certain then, and an `EndOfUtterance` follows them. The encoder and the decoder
            go on as if nothing had happened: what the speaker says next may have begun in the audio
            that is received and not decoded. None: no such events.

        Raises: ValueError for a CTC model, a look-ahead or context that the model does not have, a
        look-ahead for a model that is not causal, chunk, left or right for one that is, a chunk of
        less than a frame, a negative length, or advice that cannot be followed.
        """
        recogniser, language = with_prompt(recogniser, language)
        config = recogniser.config
        guide = guide_for(
            recogniser,
            boost=boost,
            allowed=allowed,
            language=language,
            lm=lm,
            lm_weight=lm_weight,
        )
        if config.encoder.is_causal:
            if (chunk, left, right) != (None, None, None):
                raise ValueError(
                    "a causal model streams with a look-ahead, one of "
                    f"{_listed(config.lookaheads)} s, and not with chunk, left and right; got "
                    f"chunk {chunk}, left {left} and right {right}"
                )
            recogniser = causal(recogniser, lookahead)
            self._engine = Cached(recogniser, guide)
        elif lookahead is not None:
            raise ValueError(
                "a look-ahead needs a causal model (encoder.is_causal), and this one encodes audio "
                "as a whole: it streams in windows of chunk, left and right; got lookahead "
                f"{lookahead}"
            )
        else:
            _check_transducer(recogniser)
            self._engine = Windowed(recogniser, chunk, left, right, guide)
        self.latency = self._engine.latency
        self._rate = config.features.sample_rate
        self._words = StreamWords(recogniser, keep_tags=keep_tags, end_of_turn=end_of_turn)
        self._ended = False

    def warm_up(self) -> None:
        """Compiles the program that `push` runs."""
        self._engine.warm_up()

    def push(self, samples: Any) -> list[StreamedWord | EndOfUtterance]:
        """Takes samples [S] of any length and of the types that `transcribe` takes.

        Returns: the words that have become certain, each a `StreamedWord`, and with `end_of_turn`
          an `EndOfUtterance` after the last word of each turn that is over.
        Raises:
          AudioError: if the samples cannot be used. The stream goes on without them.
          ValueError: after `finish`.
        """
        if self._ended:
            raise ValueError("samples were pushed after finish()")
        if len(samples):
            for decoded in self._engine.push(as_samples(samples, self._rate)):
                self._words.add(decoded)
        return self._words.take()

    def finish_turn(self) -> list[StreamedWord | EndOfUtterance]:
        """Ends the speaker's turn, as the caller's voice-activity detector has found.

        Everything received is decoded at once, without the audio that would have followed. The
        stream goes on with a new utterance: encoder, features and decoder start anew, times go on.

        Returns: as `push`; all words are certain.
        Raises: ValueError after `finish`.
        """
        if self._ended:
            raise ValueError("finish_turn() was called after finish()")
        return self._end()

    def flush(self) -> list[StreamedWord | EndOfUtterance]:
        """Ends the speaker's turn as `finish_turn` does, but forgets nothing.

        What the speaker says next is encoded with the audio before it, as if the stream had not
        been flushed, and no audio is decoded twice. So a flush at a pause in the middle of a
        sentence does no harm. Only a causal model can do this; for another, it is `finish_turn`.

        Returns: as `push`; all words are certain.
        Raises: ValueError after `finish`.
        """
        if not isinstance(self._engine, Cached):
            return self.finish_turn()
        if self._ended:
            raise ValueError("flush() was called after finish()")
        for decoded in self._engine.flush():
            self._words.add(decoded)
        self._words.end_turn()
        return self._words.take()

    def finish(self) -> list[StreamedWord | EndOfUtterance]:
        """Ends the stream and decodes the rest of it. Returns what was not emitted yet."""
        self._ended = True
        return self._end()

    def reset(self) -> None:
        """Starts a new stream, at time 0. Forgets what is pending, and `text`."""
        self._engine.reset()
        self._words.reset()
        self._ended = False

    def _end(self) -> list[StreamedWord | EndOfUtterance]:
        for decoded in self._engine.end():
            self._words.add(decoded)
        self._words.end()
        return self._words.take()


def causal(recogniser: Recogniser, lookahead: float | None) -> Recogniser:
    """Returns the recogniser of a causal model, with a look-ahead in seconds if one is given.

    Raises: ValueError for another model, or a look-ahead that it does not have.
    """
    _check_transducer(recogniser)
    if not recogniser.config.encoder.is_causal:
        raise ValueError(
            "many streams at once need a causal model (encoder.is_causal), and this one encodes "
            "audio as a whole; tdt_jax.Stream transcribes one stream with it"
        )
    return recogniser if lookahead is None else with_lookahead(recogniser, lookahead)


def _check_transducer(recogniser: Recogniser) -> None:
    if recogniser.config.predictor is None:
        raise ValueError("streaming needs a transducer, and this is a CTC model")


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
