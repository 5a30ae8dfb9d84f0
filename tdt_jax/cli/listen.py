"""Listening: words written as they come, from a microphone, or from PCM or WAV in a pipe."""

import functools
import shutil
import sys
from collections.abc import Callable, Iterable

from tdt_jax.cli.options import (
    add_model,
    is_terminal,
    load,
)
from tdt_jax.inference.streaming import Stream, StreamedWord
from tdt_jax.inference.transcript import PAUSE
from tdt_jax.orthography import may_part, width
from tdt_jax.recogniser import Recogniser

ERASE = "\033[K"  # a terminal's line from the cursor on


def listen(
    recogniser: Recogniser,
    blocks: Iterable,
    write: Callable[[str], object],
    *,
    columns: int = 0,
    **options,
) -> None:
    """Write the words of a stream of samples as they come, a line up to each pause of a second.

    Everything is compiled before the first block is asked for. Ctrl-C ends the stream: what was
    heard until then is written.

    Args:
      recogniser: with a transducer.
      blocks: samples, as `Stream.push` takes them: of `microphone` or `pcm_blocks`, say.
      write: takes text, and shows it at once.
      columns: of the terminal that shows it: the word that is not certain yet stands at the end of
        the line, and may change. 0: no terminal; what is written stays.
      options: of `Stream`.

    Raises: what reading blocks raises, after what was heard until then is written.
    """
    stream, page = Stream(recogniser, **options), _Page(write, columns)
    stream.warm_up()
    try:
        for samples in blocks:
            page.show(stream.push(samples), stream)
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:  # nobody reads on
        raise
    except BaseException:
        _end(stream, page)
        raise
    _end(stream, page)


def _end(stream: Stream, page: "_Page") -> None:
    page.show(stream.finish(), stream)
    page.end_line()


class _Page:
    """Lines of words, and on a terminal after the last of them what is pending."""

    def __init__(self, write: Callable[[str], object], columns: int):
        self._write, self._columns = write, columns
        self._line = ""
        self._end = 0.0  # seconds, of the last word
        self._pending = ""  # as of the stream
        self._shown = False

    def show(self, words: list[StreamedWord], stream: Stream) -> None:
        if not words and stream.pending == self._pending:
            return
        if self._shown:
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
        self._shown = bool(pending)
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
        if self._line:
            self._write("\n")
        self._line = ""


def add_listen(add) -> None:
    command = add(
        "listen",
        _listen,
        "live from the microphone or a pipe",
        "Transcribe while it is being said: chunk by chunk, each heard with what is before and\n"
        "after it, the decoder's state carried from one to the next. Words appear CHUNK + RIGHT\n"
        "seconds after they were said. Ctrl-C ends.",
        "  tdt-jax listen MODEL                 # microphone; pip install 'tdt-jax[listen]'\n"
        "  ffmpeg -i http://radio/stream -f s16le -ar 16000 -ac 1 - | tdt-jax listen MODEL -",
    )
    add_model(command, decoder=False)
    command.add_argument(
        "source",
        nargs="?",
        default="microphone",
        help="- for standard input: WAV, or 16-bit mono PCM at the model's rate [microphone]",
    )
    for name, default, what in (
        ("chunk", 1.6, "that are decoded at a time [1.6]"),
        ("left", None, "that the encoder hears before a chunk [8, less as the model was trained]"),
        ("right", 1.6, "that it hears after [1.6]"),
    ):
        command.add_argument(
            f"--{name}", type=float, default=default, metavar="S", help=f"seconds {what}"
        )
    command.add_argument(
        "--keep-tags",
        action="store_true",
        help="show what the model writes beside words, such as <|en|>",
    )


def _listen(options) -> int:
    from tdt_jax.audio.live import microphone, pcm_blocks
    from tdt_jax.cli.listen import listen

    if options.source not in ("microphone", "-"):
        raise ValueError(f"the source is - for standard input or nothing, got {options.source!r}")
    is_microphone = options.source == "microphone"
    if not is_microphone and getattr(sys.stdin, "buffer", None) is None:
        raise ValueError("standard input is closed")
    recogniser = load(options)
    rate = recogniser.config.features.sample_rate
    blocks = microphone(rate) if is_microphone else pcm_blocks(sys.stdin.buffer, rate)

    def prompted():
        if is_microphone:
            print("tdt-jax: listening; Ctrl-C ends", file=sys.stderr)
        yield from blocks

    listen(
        recogniser,
        prompted(),
        functools.partial(print, end="", flush=True),
        columns=shutil.get_terminal_size().columns if is_terminal(sys.stdout) else 0,
        chunk=options.chunk,
        left=options.left,
        right=options.right,
        keep_tags=options.keep_tags,
    )
    return 0
