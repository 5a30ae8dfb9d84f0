"""What commands share: options, loading a recogniser, messages, the progress bar."""

import argparse
import contextlib
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from tdt_jax.advice.phrases import Phrase
    from tdt_jax.recogniser import Recogniser

MODEL_HELP = (
    "the folder of a training run or of a saved recogniser, a .nemo archive, a Hugging Face "
    "folder, or a repository on the Hugging Face Hub such as nvidia/parakeet-tdt-0.6b-v3, with "
    "/FILE.nemo appended for one of its archives"
)

SOURCE_HELP = (
    "a JSONL manifest; a table (.csv, .tsv as Common Voice has it, metadata.jsonl, .parquet) with "
    "a column of audio files and one of texts; a folder of recordings with a text beside each "
    "(a.wav and a.txt); or FOLDER:SPLIT of a prepared dataset or of Parquet files"
)

AddCommand = Callable[..., argparse.ArgumentParser]  # of a name, its function and texts


def add_model(command: argparse.ArgumentParser, *, decoder: bool = True) -> None:
    """Adds MODEL and the options of loading it; `decoder`: also that of decoding with it."""
    command.add_argument("checkpoint", metavar="MODEL", help=MODEL_HELP)
    command.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        help="dtype of parameters and computation [float32 parameters, computation as configured]",
    )
    command.add_argument(
        "--local-attention",
        type=context,
        metavar="LEFT,RIGHT",
        help="frames (80 ms) that attention sees on either side, such as 128,128: audio of up to "
        "two hours in one pass, in memory that grows with its length [all frames]",
    )
    command.add_argument(
        "--lookahead",
        type=float,
        metavar="S",
        help="seconds that a causal model looks ahead, one of those that it was trained with [the "
        "first of them]",
    )
    if decoder:
        command.add_argument(
            "--decoder",
            choices=["transducer", "ctc"],
            default="",
            help="which decoder of a model that has both [transducer]",
        )


def add_batch(command: argparse.ArgumentParser) -> None:
    """Adds the options of batches and of long audio."""
    command.add_argument(
        "--batch-seconds",
        type=float,
        metavar="SECONDS",
        help="length of the audio in a batch in seconds: more is faster on a GPU or TPU, and takes "
        "more memory [10 on a CPU, 490 elsewhere]",
    )
    command.add_argument(
        "--piece-seconds",
        type=float,
        metavar="SECONDS",
        help="longest window, in seconds, that long audio is cut into at its pauses [30, or "
        "what the model was trained on; two hours with --local-attention; less than 5 costs "
        "accuracy]",
    )


def add_advice(command: argparse.ArgumentParser) -> None:
    """Adds the options of what the decoder is told to expect."""
    group = command.add_argument_group("what to expect, of a transducer")
    group.add_argument(
        "--boost",
        action="append",
        metavar="PHRASE[=WEIGHT]",
        help="a phrase that is likely, such as a name, whatever its case; a weight above 1 makes "
        "it likelier, below 0 unlikely; may repeat [=1]",
    )
    group.add_argument(
        "--boost-file",
        action="append",
        metavar="FILE",
        help="a text file with a PHRASE[=WEIGHT] on each line; may repeat",
    )
    group.add_argument(
        "--allowed",
        action="append",
        metavar="PHRASE",
        help="transcribe nothing but this and other allowed phrases, such as yes and no; may "
        "repeat; digits: nothing but digits",
    )
    group.add_argument(
        "--language",
        action="append",
        metavar="CODE",
        help="the language spoken, such as de: the prompt of a model that has one; others emit no "
        "letters of other scripts; may repeat",
    )
    group.add_argument(
        "--lm",
        metavar="FILE",
        help="an n-gram language model over the model's labels, an ARPA file as tdt-jax lm writes",
    )
    group.add_argument(
        "--lm-weight",
        type=float,
        default=0.3,
        metavar="W",
        help="what the logarithms of its probabilities are multiplied with [%(default)s]",
    )


def advice(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the options of `add_advice` that were given as those of `tdt_jax.transcribe`.

    Raises: ValueError for a file without phrases.
    """
    languages = options.language
    given = dict(
        boost=boosted(options),
        allowed="digits" if options.allowed == ["digits"] else options.allowed,
        language=languages[0] if languages and len(languages) == 1 else languages,
        lm=options.lm,
        lm_weight=options.lm_weight if options.lm else None,
    )
    return {name: value for name, value in given.items() if value is not None}


def boosted(options: argparse.Namespace) -> "list[Phrase] | None":
    """Returns the phrases of `add_advice`'s options; None without any.

    Raises: ValueError for a file without phrases.
    """
    lines = list(options.boost or ())
    for file in options.boost_file or ():
        with open(file, encoding="utf-8-sig") as text:
            found = [line.strip() for line in text if line.strip()]
        if not found:
            raise ValueError(f"there are no phrases in {file}")
        lines += found
    return list(map(phrase, lines)) or None


def phrase(text: str) -> "Phrase":
    """Returns PHRASE[=WEIGHT] as a phrase and its weight, 1 without."""
    words, equals, weight = text.rpartition("=")
    try:
        return (words, float(weight)) if equals and words.strip() else (text, 1.0)
    except ValueError:
        return text, 1.0


def add_keys(command: argparse.ArgumentParser) -> None:
    """Adds the option of the fields that hold audio and text."""
    command.add_argument(
        "--keys",
        type=two_names,
        default=("speech", "text"),
        metavar="AUDIO,TEXT",
        help="names of the fields of a dataset's records [speech,text], or of the columns of a "
        "table [the usual names]",
    )


def add_no_progress(command: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Adds the option without the progress bar."""
    command.add_argument(
        "--no-progress",
        action="store_true",
        help="show no progress bar; there is none without a terminal either",
    )


def context(text: str) -> tuple[int, int]:
    """Returns LEFT,RIGHT as two numbers of frames."""
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not two numbers of frames")
    return int(parts[0]), int(parts[1])


def two_names(text: str) -> tuple[str, str]:
    """Returns A,B as two names."""
    first, _, second = (part.strip() for part in text.partition(","))
    if not first or not second or "," in second:
        raise argparse.ArgumentTypeError(f"{text!r} is not two names")
    return first, second


def positive(text: str) -> int:
    """Returns a whole number above zero."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def shard(text: str) -> tuple[int, int]:
    """Returns I/N as two numbers, I from 1 to N."""
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with I from 1 to N, such as 1/4")
    return int(number), int(count)


def load(options: argparse.Namespace, *, on_all: bool = False) -> "Recogniser":
    """Returns the recogniser of `add_model`'s options, on one device.

    With `on_all` it is on all accelerators of this process.
    """
    from tdt_jax.checkpoints import loading
    from tdt_jax.recogniser import with_lookahead
    from tdt_jax.runtime import process, sharding

    process.set_up()
    process.require_devices()
    recogniser = loading.load(
        options.checkpoint,
        dtype=options.dtype,
        attention_context=options.local_attention,
        sharding=sharding.on_accelerators() if on_all else None,
    )
    if options.lookahead is not None:
        recogniser = with_lookahead(recogniser, options.lookahead)
    return recogniser


def complain(text: str) -> None:
    """Prints a line on standard error, above the progress bar."""
    from tqdm import tqdm

    tqdm.write(f"tdt-jax: {text}", file=sys.stderr)


@contextlib.contextmanager
def audio_warnings() -> Iterator[None]:
    """Prints every warning about audio or advice within it as a line on standard error."""
    from tdt_jax.advice.phrases import AdviceWarning
    from tdt_jax.audio.errors import AudioWarning

    with warnings.catch_warnings():
        for category in (AdviceWarning, AudioWarning):
            warnings.simplefilter("always", category)
        show = warnings.showwarning

        def complain_or_show(message, category, *place, **options):
            if issubclass(category, AudioWarning | AdviceWarning):
                complain(str(message))
            else:
                show(message, category, *place, **options)

        warnings.showwarning = complain_or_show
        yield


def is_terminal(file: TextIO | None) -> bool:
    """Returns whether a stream is a terminal; a closed one (None) is not."""
    return file is not None and file.isatty()


def has_colors(file: TextIO | None) -> bool:
    """Returns whether a stream is a terminal that shows colors, and whose user wants them."""
    is_plain = os.environ.get("TERM", "dumb") == "dumb" or bool(os.environ.get("NO_COLOR"))
    return is_terminal(file) and not is_plain


def hides_progress(options: argparse.Namespace) -> bool:
    """Returns whether to show no progress bar."""
    return options.no_progress or not is_terminal(sys.stderr)


@contextlib.contextmanager
def progress_bar(seconds: float, *, hidden: bool) -> Iterator[Callable[[float], None]]:
    """Shows a bar of hours of audio on standard error.

    Yields a function to call with the seconds of audio that are done.
    """
    from tqdm import tqdm

    from tdt_jax.runtime.process import compile_seconds

    start, compiled = time.perf_counter(), compile_seconds()
    shape = "{percentage:3.0f} % |{bar}| {n:.2f} of {total:.2f} h{postfix}  {remaining} left"
    total = max(seconds / 3600, 1e-9)
    with tqdm(total=total, bar_format=shape, disable=hidden, file=sys.stderr) as bar:

        def advance(done: float) -> None:
            bar.n = min(bar.n + done / 3600, total)
            busy = time.perf_counter() - start - (compile_seconds() - compiled)
            bar.set_postfix_str(f"RTFx {bar.n * 3600 / max(busy, 1e-9):.0f}", refresh=False)
            bar.update(0)

        yield advance
