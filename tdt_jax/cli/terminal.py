"""The words of a stream, written as they come, on a terminal or not."""

from collections.abc import Callable, Iterable

import numpy as np

from tdt_jax.inference.end_of_turn import EndOfUtterance
from tdt_jax.inference.stream_words import StreamedWord
from tdt_jax.inference.streaming import Stream
from tdt_jax.inference.transcript import PAUSE
from tdt_jax.orthography import may_part, width
from tdt_jax.recogniser import Recogniser

ERASE = "\033[K"  # clears a terminal's line from the cursor on


def write_words(
    recogniser: Recogniser,
    blocks: Iterable[np.ndarray],
    write: Callable[[str], object],
    *,
    columns: int = 0,
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
      options: of `Stream`.

    Raises: what reading blocks raises, after the words until then are written.
    """
    stream, page = Stream(recogniser, **options), _Page(write, columns)
    stream.warm_up()
    try:
        for samples in blocks:
            page.show(stream.push(samples), stream)
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
    page.end_line()


class _Page:
    """Lines of words, and on a terminal the pending words after the last of them."""

    def __init__(self, write: Callable[[str], object], columns: int):
        self._write, self._columns = write, columns
        self._line = ""
        self._end = 0.0  # seconds, of the last word
        self._pending = ""  # as of the stream
        self._shows_pending = False

    def show(self, events: list[StreamedWord | EndOfUtterance], stream: Stream) -> None:
        """Writes words, and the stream's pending ones where there is room for them."""
        words = [event for event in events if isinstance(event, StreamedWord)]
        if not words and stream.pending == self._pending:
            return
        if self._shows_pending:
            self._write(f"\r{self._line}{ERASE}")
        for word in words:
            self._add(word)
        if not stream.pending and stream.seconds - self._end >= PAUSE:
            self.end_line()
        self._pending = stream.pending
        pending = self._pending if self._line else self._pending.lstrip()
        room = self._columns - 1 - width(self._line)
        while pending and width(pending) > room:
            pending = pending[:-1]
        self._shows_pending = bool(pending)
        if pending:
            self._write(pending)

    def _add(self, word: StreamedWord) -> None:
        text = f" {word.text}" if word.space_before and self._line else word.text
        is_full = self._columns and width(self._line + text) >= self._columns
        is_apart = word.space_before or (self._line and may_part(self._line, word.text))
        if is_full or (is_apart and word.start - self._end >= PAUSE):
            self.end_line()
            text = word.text
        self._write(text)
        self._line, self._end = self._line + text, word.end

    def end_line(self) -> None:
        """Ends the line, if it holds anything."""
        if self._line:
            self._write("\n")
        self._line = ""
