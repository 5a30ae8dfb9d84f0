"""tdt-jax listen: live from a microphone, or from PCM or WAV in a pipe."""

import argparse
import functools
import shutil
import sys

from tdt_jax.cli.options import (
    AddCommand,
    add_advice,
    add_model,
    advice,
    audio_warnings,
    has_colors,
    is_terminal,
    load,
)


def add_listen(add: AddCommand) -> None:
    command = add(
        "listen",
        _listen,
        "live from the microphone or a pipe",
        "Transcribe live, chunk by chunk; the decoder's state is carried from one to the next.\n"
        "A causal model encodes each chunk once; words appear LOOKAHEAD seconds after they were\n"
        "spoken. Another one encodes each with the audio before and after it; words appear\n"
        "CHUNK + RIGHT seconds after they were spoken. On a terminal, words that may still\n"
        "change are grey, and a line below shows the latency. Ctrl-C ends.",
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
    for name, what in (
        ("chunk", "that are decoded at a time, of other models [1.6]"),
        ("left", "before a chunk that the encoder sees [8, less as the model was trained]"),
        ("right", "after a chunk that the encoder sees [1.6]"),
    ):
        command.add_argument(f"--{name}", type=float, metavar="S", help=f"seconds {what}")
    add_advice(command)
    command.add_argument(
        "--keep-tags",
        action="store_true",
        help="keep what the model emits beside words, such as <|en|>",
    )


def _listen(options: argparse.Namespace) -> int:
    from tdt_jax.audio.live import microphone, pcm_blocks
    from tdt_jax.cli import terminal

    if options.source not in ("microphone", "-"):
        raise ValueError(
            f"listen reads the microphone, or standard input if the source is -, got "
            f"{options.source!r}; tdt-jax transcribe reads files"
        )
    is_microphone = options.source == "microphone"
    if not is_microphone and getattr(sys.stdin, "buffer", None) is None:
        raise ValueError("standard input is closed")
    told = advice(options)
    recogniser = load(options)
    rate = recogniser.config.features.sample_rate
    blocks = microphone(rate) if is_microphone else pcm_blocks(sys.stdin.buffer, rate)

    def after_prompt():
        if is_microphone:
            print("tdt-jax: listening; Ctrl-C ends", file=sys.stderr)
        yield from blocks

    with audio_warnings():
        terminal.write_words(
            recogniser,
            after_prompt(),
            functools.partial(print, end="", flush=True),
            columns=shutil.get_terminal_size().columns if is_terminal(sys.stdout) else 0,
            ansi=has_colors(sys.stdout),
            chunk=options.chunk,
            left=options.left,
            right=options.right,
            **told,
            keep_tags=options.keep_tags,
        )
    return 0
