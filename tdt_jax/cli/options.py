"""What several commands of the command line take and do."""

import argparse
import contextlib
import sys
import time
import warnings

MODEL_HELP = (
    "the folder of a training run or of a saved recogniser, a .nemo archive, a Hugging Face "
    "folder, or a repository on the Hugging Face Hub such as nvidia/parakeet-tdt-0.6b-v3, with "
    "/FILE.nemo behind it for one of its archives"
)


def add_model(command, *, decoder: bool = True) -> None:
    command.add_argument("checkpoint", metavar="MODEL", help=MODEL_HELP)
    command.add_argument("--dtype", choices=["float32", "bfloat16"], help="of the model")
    command.add_argument(
        "--local-attention",
        type=context,
        metavar="LEFT,RIGHT",
        help="frames (80 ms) that attention sees, such as 128,128: audio of up to two hours in one "
        "pass, in memory that grows with its length",
    )
    if decoder:
        command.add_argument(
            "--decoder", choices=["transducer", "ctc"], default="", help="of a model that has both"
        )


def add_batch(command) -> None:
    command.add_argument(
        "--batch-seconds",
        type=float,
        metavar="SECONDS",
        help="of audio at a time: more is faster on a GPU or TPU, and takes more memory "
        "[10 on a CPU, 490 elsewhere]",
    )
    command.add_argument(
        "--piece-seconds",
        type=float,
        metavar="SECONDS",
        help="that long audio is cut into, at pauses [30, or what the model was trained on; with "
        "--local-attention two hours; less than 5 costs accuracy]",
    )


def context(text: str) -> tuple[int, int]:
    """LEFT,RIGHT as a command takes it."""
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not two numbers of frames")
    return int(parts[0]), int(parts[1])


def two_names(text: str) -> tuple[str, str]:
    """A,B as a command takes it."""
    names = tuple(name.strip() for name in text.split(","))
    if len(names) != 2 or not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not two names")
    return names


def positive(text: str) -> int:
    """A whole number above zero."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def load(options, *, on_all: bool = False):
    """The recogniser that `add_model`'s options mean; on all accelerators here, or on one."""
    import jax

    from tdt_jax.checkpoints import loading
    from tdt_jax.runtime import process, sharding

    process.set_up()
    process.require_devices()
    placement = None
    if on_all and jax.default_backend() != "cpu" and jax.local_device_count() > 1:
        placement = sharding.replicated(sharding.make_mesh(jax.local_devices()))
    return loading.load(
        options.checkpoint,
        dtype=options.dtype,
        attention_context=options.local_attention,
        sharding=placement,
    )


def complain(text: str) -> None:
    """A line on standard error, above the progress bar."""
    from tqdm import tqdm

    tqdm.write(f"tdt-jax: {text}", file=sys.stderr)


@contextlib.contextmanager
def audio_warnings():
    """A context in which what is said of a recording is a line on standard error."""
    from tdt_jax.audio.errors import AudioWarning

    with warnings.catch_warnings():
        warnings.simplefilter("always", AudioWarning)
        show = warnings.showwarning

        def complained(message, category, *place, **options):
            if issubclass(category, AudioWarning):
                complain(str(message))
            else:
                show(message, category, *place, **options)

        warnings.showwarning = complained
        yield


def is_terminal(file) -> bool:
    """Whether somebody looks at it."""
    return file is not None and file.isatty()


@contextlib.contextmanager
def progress_bar(seconds: float, *, hidden: bool):
    """A bar of hours of audio on standard error; yields what takes the seconds done."""
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
