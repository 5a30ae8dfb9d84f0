"""tdt-jax convert: a recogniser in another format."""

import argparse
from pathlib import Path

from tdt_jax.cli.options import MODEL_HELP, AddCommand, complain


def add_convert(add: AddCommand) -> None:
    command = add(
        "convert",
        _convert,
        "a checkpoint into another format",
        "Read a checkpoint of any kind and write it in the format of tdt_jax (jax), transformers\n"
        "(hf) or NeMo (nemo). Nothing that exists is overwritten.",
        "  tdt-jax convert parakeet.nemo folder --to hf",
    )
    command.set_defaults(writes_files=lambda options: True)
    command.add_argument("source", metavar="IN", help=MODEL_HELP)
    command.add_argument("target", metavar="OUT", help="a folder; a file for --to nemo")
    command.add_argument(
        "--to", choices=["jax", "hf", "nemo"], required=True, help="format to write"
    )
    command.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        help="dtype of the parameters in the output [float32]",
    )
    command.add_argument(
        "--drop-ctc",
        action="store_true",
        help="leave out the CTC head of a hybrid, which transformers does not know",
    )


def _convert(options: argparse.Namespace) -> int:
    from tdt_jax.checkpoints import loading
    from tdt_jax.recogniser import without_ctc
    from tdt_jax.runtime import process

    target = Path(options.target)
    is_free = target.is_dir() and not any(target.iterdir()) and options.to != "nemo"
    if target.exists() and not is_free:
        raise ValueError(f"{target} exists already")
    process.require_devices()
    recogniser = loading.load(options.source, dtype=options.dtype)
    if options.drop_ctc:
        recogniser = without_ctc(recogniser)
    target.parent.mkdir(parents=True, exist_ok=True)
    loading.save(recogniser, target, format=options.to)
    config = recogniser.config
    if options.to == "nemo" and config.features.silence is not None:
        complain(
            "NeMo cannot leave silence out of the features' mean and deviation, as this model "
            "does: there it will transcribe recordings with silence less well"
        )
    print(f"{target}: {config.kind}, {config.vocab_size} tokens")
    return 0
