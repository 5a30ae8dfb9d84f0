"""The words of a stream, written as they come, on a terminal or not."""

import time
from collections.abc import Callable, Iterable

import numpy as np

from tdt_jax.inference.end_of_turn import EndOfUtterance
from tdt_jax.inference.stream_words import StreamedWord
from tdt_jax.inference.streaming import Stream
from tdt_jax.inference.transcript import PAUSE
from tdt_jax.orthography import may_part, width
from tdt_jax.recogniser import Recogniser

ERASE = "\033[K"  # clears a terminal's line from the cursor on
ERASE_BELOW = "\033[J"  # and the lines below
GREY, PLAIN, UP = "\033[90m", "\033[0m", "\033[A"


def write_words(
    recogniser: Recogniser,
    blocks: Iterable[np.ndarray],
    write: Callable[[str], object],
    *,
    columns: int = 0,
    ansi: bool = False,
    **options,
) -> None:
    """Writes the words of a stream of samples as they come, a line up to each pause of a second.

    Everything is compiled before the first block is read. Ctrl-C ends the stream: the words of what
    was read until then are written.

    Args:
      recogniser: with a transducer.
      blocks: samples, as `Stream.push` takes them, such as those of `microphone` or `pcm_blocks`.
      write: takes text, and shows it at once.
      columns: width of the terminal that shows the text. On a terminal the words that are not
        certain yet stand at the end of the line, and may change. 0: no terminal.
      ansi: whether the terminal shows colors: then those words are grey, and a line below shows the
        latency, of the stream and of the last computation.
      options: of `Stream`.

    Raises: what reading blocks raises, after the words until then are written.
    """
    stream, page = Stream(recogniser, **options), _Page(write, columns, ansi and columns > 0)
    stream.warm_up()
    try:
        for samples in blocks:
            start, decoded = time.perf_counter(), stream.seconds
            words = stream.push(samples)
            page.show(words, stream)
            if stream.seconds > decoded:
                busy = time.perf_counter() - start
                page.show_status(f"latency {stream.latency:.2f} s + {busy:.3f} s of computation")
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:  # nobody reads the words any more
        raise
    except BaseException:
        _end(stream, page)
        raise
    _end(stream, page)


def _end(stream: Stream, page: "_Page") -> None:
    page.show(stream.finish(), stream)
    page.end()


class _Page:
    """Lines of words; on a terminal the pending words after the last of them, and a status."""

    def __init__(self, write: Callable[[str], object], columns: int, ansi: bool):
        self._write, self._columns, self._ansi = write, columns, ansi
        self._line = ""
        self._end = 0.0  # seconds, of the last word
        self._pending = ""  # as of the stream
        self._shown = ""  # of the pending words
        self._status = ""

    def show(self, events: list[StreamedWord | EndOfUtterance], stream: Stream) -> None:
        """Writes words, and the stream's pending ones where there is room for them."""
        words = [event for event in events if isinstance(event, StreamedWord)]
        if not words and stream.pending == self._pending:
            return
        if self._shown or self._status:
            self._write(f"\r{self._line}{ERASE_BELOW if self._status else ERASE}")
        for word in words:
            self._add(word)
        if not stream.pending and stream.seconds - self._end >= PAUSE:
            self.end_line()
        self._pending = stream.pending
        pending = self._pending if self._line else self._pending.lstrip()
        room = self._columns - 1 - width(self._line)
        while pending and width(pending) > room:
            pending = pending[:-1]
        self._shown = pending
        if pending:
            self._write(f"{GREY}{pending}{PLAIN}" if self._ansi else pending)
        self._write_status()

    def show_status(self, text: str) -> None:
        """Writes a line below the words, if the terminal can."""
        if self._ansi:
            self._status = text[: self._columns - 1]
            self._write_status()

    def _write_status(self) -> None:
        if self._status:
            column = width(self._line + self._shown)
            back = f"{UP}\r" + (f"\033[{column}C" if column else "")
            self._write(f"\n\r{ERASE}{GREY}{self._status}{PLAIN}{back}")

    def _add(self, word: StreamedWord) -> None:
        text = f" {word.text}" if word.space_before and self._line else word.text
        is_full = self._columns and width(self._line + text) >= self._columns
        is_apart = word.space_before or (self._line and may_part(self._line, word.text))
        if is_full or (is_apart and word.start - self._end >= PAUSE):
            self.end_line()
            text = word.text
        self._write(text)
        self._line, self._end = self._line + text, word.end

    def end(self) -> None:
        """Ends the line and removes the status."""
        if self._status:
            self._write(ERASE_BELOW)
        self.end_line()

    def end_line(self) -> None:
        """Ends the line, if it holds anything."""
        if self._line:
            self._write("\n")
        self._line = ""
