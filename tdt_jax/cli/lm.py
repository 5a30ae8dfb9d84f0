"""tdt-jax lm: an n-gram language model over a model's labels."""

import argparse
from pathlib import Path

from tdt_jax.cli.options import AddCommand, complain, positive


def add_lm(add: AddCommand) -> None:
    command = add(
        "lm",
        _lm,
        "n-gram language model of a text, for --lm",
        "Train an n-gram language model over the labels of a model, with Kneser-Ney smoothing, on\n"
        "a text file with a sentence on each line, written as the model writes (case, marks).",
        "  tdt-jax lm text.txt model.arpa --tokenizer MODEL\n"
        "  tdt-jax transcribe MODEL talk.mp3 --lm model.arpa",
    )
    command.set_defaults(writes_files=lambda options: True)
    command.add_argument("text", metavar="TEXT", help="a text file")
    command.add_argument("out", metavar="OUT", help="the ARPA file to write")
    command.add_argument(
        "--tokenizer",
        required=True,
        metavar="MODEL",
        help="a model, or the folder or file of its tokenizer",
    )
    command.add_argument(
        "--order", type=positive, default=3, metavar="N", help="labels of the longest n-gram [3]"
    )


def _lm(options: argparse.Namespace) -> int:
    import io

    from tdt_jax import tokenizer as tokenizers
    from tdt_jax.advice.ngrams import write_arpa
    from tdt_jax.checkpoints import loading
    from tdt_jax.runtime.files import write_atomically

    try:
        tokenizer = tokenizers.load(options.tokenizer)
    except ValueError:
        tokenizer = loading.load(options.tokenizer).tokenizer
    written = io.StringIO()
    with open(options.text, encoding="utf-8") as lines:
        left_out = write_arpa(lines, tokenizer, options.order, written)
    write_atomically(Path(options.out), written.getvalue())
    if left_out:
        complain(f"left out {left_out} lines with characters that the model has no labels for")
    return 0
