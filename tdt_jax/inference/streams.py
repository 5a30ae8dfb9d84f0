"""Streams: many live streams of a causal model, decoded together on the device."""

import threading
from typing import Any

from tdt_jax.advice.guide import Guide
from tdt_jax.audio.reading import as_samples
from tdt_jax.inference.advised import guide_for, with_prompt
from tdt_jax.inference.cached import Feed, Mark, Slots
from tdt_jax.inference.end_of_turn import EndOfTurn, EndOfUtterance
from tdt_jax.inference.stream_words import LiveText, StreamedWord, StreamWords
from tdt_jax.inference.streaming import causal
from tdt_jax.recogniser import Recogniser


class LiveStream(LiveText):
    """One stream of `Streams`, from `Streams.open`.

    Its methods return at once: what is pushed waits for `Streams.step`, which returns the words. A
    stream's words do not depend on other streams, bit for bit.

    Attributes:
      text, pending, seconds, language, end_of_turn, latency: as of `Stream`.
      num_ended: how many calls of `flush`, `finish_turn` and `finish` have been decoded up to.
      is_open: False after `close`, and when all has been decoded after `finish`.
    """

    def __init__(self, streams: "Streams", row: int, words: StreamWords, feed: Feed):
        self._streams, self._row, self._words, self._feed = streams, row, words, feed
        self._ended = False
        self.num_ended = 0
        self.is_open = True

    @property
    def latency(self) -> float:
        return self._streams.latency

    def push(self, samples: Any) -> None:
        """Takes samples [S] of any length and of the types that `transcribe` takes.

        Raises:
          AudioError: if the samples cannot be used. The stream goes on without them.
          ValueError: after `finish` or `close`.
        """
        if len(samples):
            samples = as_samples(samples, self._streams._config.features.sample_rate)
        with self._streams._lock:
            self._check("samples were pushed")
            self._feed.push(samples)

    def finish_turn(self) -> None:
        """Ends the speaker's turn after the samples pushed so far, as of `Stream`.

        Raises: ValueError after `finish` or `close`.
        """
        with self._streams._lock:
            self._check("finish_turn() was called")
            self._feed.mark(Mark.END)

    def flush(self) -> None:
        """Ends the speaker's turn after the samples pushed so far, but forgets nothing.

        As of `Stream`. Raises: ValueError after `finish` or `close`.
        """
        with self._streams._lock:
            self._check("flush() was called")
            self._feed.mark(Mark.FLUSH)

    def finish(self) -> None:
        """Ends the stream after the samples pushed so far; its slot is free when they are decoded.

        Raises: ValueError after `finish` or `close`.
        """
        with self._streams._lock:
            self._check("finish() was called")
            self._feed.mark(Mark.END)
            self._ended = True

    def reset(self) -> None:
        """Starts a new stream, at time 0. Forgets what is pending, and `text`.

        Raises: ValueError after `finish` or `close`.
        """
        with self._streams._lock:
            self._check("reset() was called")
            self._feed = self._streams._start(self._row, self._feed.guide)
            self._words.reset()

    def close(self) -> None:
        """Gives up the stream: its slot is free at once, what waits is not decoded."""
        with self._streams._lock:
            if self.is_open:
                self._streams._free(self._row)
                self.is_open = False

    def _check(self, action: str) -> None:
        """Raises ValueError after `finish` or `close`; the caller holds the lock."""
        if self._ended or not self.is_open:
            raise ValueError(f"{action} after {'finish' if self._ended else 'close'}()")


class Streams:
    """Transcribes many live streams with a causal model, as rows of one state on the device.

        streams = Streams(recogniser, slots=32)
        stream = streams.open()                 # when a client comes
        stream.push(samples)                    # when its audio comes
        for stream, events in streams.step():   # again and again
            ...

    `step` runs one program for all streams that have the samples of a chunk, or end; the others
    wait. The program is compiled once, whichever streams come and go. Streams may be opened, pushed
    to and closed by other threads while one thread calls `step`.

    Attributes:
      latency: as of `Stream`.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        *,
        slots: int,
        lookahead: float | None = None,
        keep_tags: bool = False,
        end_of_turn: EndOfTurn | None = None,
        **advice: Any,
    ):
        """Starts without streams.

        Args:
          recogniser: with a causal transducer.
          slots: the most streams at a time. Memory and the time of a step grow with it.
          lookahead, keep_tags, end_of_turn: as of `Stream`, for all streams.
          advice: boost, allowed, language, lm, lm_weight: as of `Stream`, for all streams that are
            opened without.

        Raises: ValueError for a model that is no causal transducer, a look-ahead that it does not
        have, advice that cannot be followed, or less than one slot.
        """
        if slots < 1:
            raise ValueError(f"streams need at least one slot, got {slots}")
        recogniser, language = with_prompt(recogniser, advice.pop("language", None))
        self._recogniser = causal(recogniser, lookahead)
        self._config = self._recogniser.config
        self._keep_tags, self._end_of_turn = keep_tags, end_of_turn
        self._guide = guide_for(recogniser, language=language, **advice)
        self._slots = Slots(self._recogniser, slots, donate=True)
        self._streams: list[LiveStream | None] = [None] * slots
        self._lock = threading.Lock()  # of all that is on the host
        self.latency = self._slots.latency

    def warm_up(self) -> None:
        """Compiles the programs that `step` runs."""
        self._slots.warm_up()

    def open(self, **advice: Any) -> LiveStream:
        """Returns a new stream, with advice of its own (as of `Stream`) or that of all streams.

        The first with advice of a kind compiles the step anew; others do not, unless theirs is
        much larger. A language is that of models without a prompt.

        Raises: ValueError if all slots are taken, or for advice that cannot be followed.
        """
        guide = guide_for(self._recogniser, **advice) or self._guide
        with self._lock:
            if None not in self._streams:
                raise ValueError(
                    f"all {len(self._streams)} slots are taken; a stream must be finished or "
                    "closed before another is opened"
                )
            row = self._streams.index(None)
            words = StreamWords(
                self._recogniser, keep_tags=self._keep_tags, end_of_turn=self._end_of_turn
            )
            stream = LiveStream(self, row, words, self._start(row, guide))
            self._streams[row] = stream
            return stream

    def step(self) -> list[tuple[LiveStream, list[StreamedWord | EndOfUtterance]]]:
        """Decodes one chunk of every stream whose samples have come, or the end of its utterance.

        If a step is interrupted, as by Ctrl-C, the state of all streams is lost with it.

        Returns: those streams, each with what has become certain, as of `Stream.push`; often
          nothing, but `pending` may have changed. An empty list if no stream was ready.
        """
        with self._lock:
            parts = self._slots.next()
        results = self._slots.decode(parts)
        stepped = []
        with self._lock:
            for (row, feed, _, mark), result in zip(parts, results, strict=True):
                stream = self._streams[row]
                if stream is None or stream._feed is not feed:
                    continue  # closed or reset meanwhile
                stream._words.add(feed.advance(mark, *result))
                stream.num_ended += mark is not None
                if mark is Mark.END:
                    stream._words.end()
                elif mark is Mark.FLUSH:
                    stream._words.end_turn()
                if stream._ended and feed.is_empty:
                    stream.is_open = False
                    self._free(row)
                stepped.append((stream, stream._words.take()))
        return stepped

    def _start(self, row: int, guide: Guide | None) -> Feed:
        """Starts a new stream in a row."""
        feed = self._slots.feeds[row] = Feed(self._config, guide)
        return feed

    def _free(self, row: int) -> None:
        self._streams[row] = self._slots.feeds[row] = None
