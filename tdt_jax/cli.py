"""The command line: tdt-jax transcribe | evaluate | convert | benchmark."""

import argparse
import dataclasses
import json
import sys

from tdt_jax import __version__


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit code is 0 if all went well, 1 if some files failed, 2 for misuse."""
    parser = argparse.ArgumentParser(
        prog="tdt-jax", description="Token-and-Duration Transducers in JAX."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser(
        "transcribe",
        help="audio files to text",
        description="Transcribe audio files of any format, rate and number of channels. A file "
        "that cannot be read is named on standard error and skipped; the exit code is then 1.",
    )
    command.set_defaults(run=_transcribe)
    _add_model(command)
    command.add_argument("files", nargs="+", metavar="FILE")
    command.add_argument(
        "--json", action="store_true", help="one JSON object a line, with the times of words"
    )
    command.add_argument("--batch-size", type=_positive, default=8, help="pieces at a time [8]")

    command = commands.add_parser(
        "evaluate",
        help="word error rate on a manifest",
        description="Transcribe a JSONL manifest (audio_filepath, duration, text) and report WER, "
        "CER, decoder steps per second of audio and RTFx (compilation apart). Texts are compared "
        "as they are, after splitting at spaces.",
    )
    command.set_defaults(run=_evaluate)
    _add_model(command)
    command.add_argument("manifest")
    command.add_argument("--json", action="store_true", help="the result, with every transcript")
    command.add_argument("--batch-size", type=_positive, default=8, help="utterances at a time [8]")

    command = commands.add_parser(
        "convert",
        help="a checkpoint into another format",
        description="Read a checkpoint of any kind and write it as one of tdt_jax (jax), of "
        "transformers (hf) or of NeMo (nemo). Nothing that exists is overwritten.",
    )
    command.set_defaults(run=_convert)
    command.add_argument("source", metavar="IN", help=MODEL_HELP)
    command.add_argument("target", metavar="OUT", help="a folder, or for nemo a file")
    command.add_argument("--to", choices=["jax", "hf", "nemo"], required=True)
    command.add_argument(
        "--dtype", choices=["float32", "bfloat16"], help="of the parameters written [float32]"
    )
    command.add_argument(
        "--drop-ctc", action="store_true", help="leave the CTC head of a hybrid out (for hf)"
    )

    command = commands.add_parser(
        "benchmark",
        help="speed and memory, measured here",
        description="Measure on this machine. `loss`: the transducer loss, forward and backward, "
        "from frames and states to the gradients of joint, frames and states, against the time "
        "that its matrix products take alone. `encoder`: the encoder of a Parakeet's size, random "
        "weights, likewise. `parity`: a Parakeet of transformers' with random weights, saved, "
        "loaded here and compared stage by stage and label by label (needs --peers' packages).",
    )
    command.set_defaults(run=_benchmark)
    command.add_argument("what", choices=["loss", "encoder", "parity"])
    command.add_argument(
        "--case",
        action="append",
        metavar="NAME",
        help="loss: small, v2, v3 or long; may repeat [all]. encoder and parity: 110m, 0.6b, 1.1b "
        "or rnnt-0.6b [0.6b]",
    )
    command.add_argument("--seconds", type=float, default=30.0, help="encoder: of audio [30]")
    command.add_argument(
        "--local-attention", type=_context, metavar="LEFT,RIGHT", help="encoder: frames seen"
    )
    command.add_argument(
        "--utterances", type=_positive, default=200, help="parity: that are decoded [200]"
    )
    command.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    command.add_argument("--repeats", type=_positive, default=5, help="runs, for the median [5]")
    command.add_argument(
        "--peers", action="store_true", help="beside transformers, if it is installed"
    )
    command.add_argument("--json", action="store_true", help="one JSON object a case")
    command.add_argument("--batch", type=_positive, help="another B than the case's")
    command.add_argument(
        "--aot", metavar="TOPOLOGY", help="no run: what a TPU's compiler estimates, for v5e:2x2"
    )

    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except (ValueError, OSError) as error:
        print(f"tdt-jax: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


MODEL_HELP = (
    "the folder of a training run or of a saved recogniser, a .nemo archive, a Hugging Face "
    "folder, or a repository on the Hugging Face Hub such as nvidia/parakeet-tdt-0.6b-v3"
)


def _add_model(command) -> None:
    command.add_argument("checkpoint", help=MODEL_HELP)
    command.add_argument("--dtype", choices=["float32", "bfloat16"], help="of the model")
    command.add_argument(
        "--local-attention",
        type=_context,
        metavar="LEFT,RIGHT",
        help="frames (80 ms) that attention sees, such as 128,128: audio of up to two hours in one "
        "pass, in memory that grows with its length",
    )
    command.add_argument(
        "--decoder", choices=["transducer", "ctc"], default="", help="of a model that has both"
    )


def _context(text: str) -> tuple[int, int]:
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not two numbers of frames")
    return int(parts[0]), int(parts[1])


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def _load(options):
    from tdt_jax import recogniser, runtime

    runtime.set_up()
    return recogniser.load(
        options.checkpoint, dtype=options.dtype, attention_context=options.local_attention
    )


def _transcribe(options) -> int:
    from tdt_jax.transcribe import transcribe

    failed: dict[int, str] = {}
    transcripts = transcribe(
        _load(options),
        options.files,
        batch_size=options.batch_size,
        decoder=options.decoder,
        failed=failed,
    )
    for position, (file, transcript) in enumerate(zip(options.files, transcripts, strict=True)):
        if transcript is None:
            print(f"tdt-jax: skipped {failed[position]}", file=sys.stderr)
        elif options.json:
            print(json.dumps({"file": file, **dataclasses.asdict(transcript)}, ensure_ascii=False))
        elif len(options.files) == 1:
            print(transcript.text)
        else:
            print(f"{file}\t{transcript.text}")
    return 1 if failed else 0


def _evaluate(options) -> int:
    from tdt_jax.config import Bucket
    from tdt_jax.data.manifest import read_manifest
    from tdt_jax.evaluation import evaluate
    from tdt_jax.transcribe import LENGTHS

    entries = read_manifest(options.manifest)
    longest = max(60.0, LENGTHS[-1], *(entry.seconds for entry in entries))
    shapes = [*LENGTHS, *((longest,) if longest > LENGTHS[-1] else ())]
    buckets = [Bucket(seconds, 1, options.batch_size) for seconds in shapes]
    result = evaluate(_load(options), entries, buckets, decoder=options.decoder)
    for why in result.failed.values():
        print(f"tdt-jax: not counted: {why}", file=sys.stderr)
    if not options.json:
        print(result.summary())
        return 1 if result.failed else 0
    utterances = [
        {
            "id": each.id,
            "reference": each.reference,
            "text": each.text,
            "seconds": each.seconds,
            "decoder_steps": int(each.hypothesis.num_steps),
        }
        for each in result.results
    ]
    summary = {
        "wer": result.words.rate,
        "cer": result.characters.rate,
        "words": result.words._asdict(),
        "audio_seconds": result.audio_seconds,
        "decoder_steps_per_second": result.steps_per_second,
        "rnnt_steps_per_second": result.rnnt_steps_per_second,
        "rtfx": result.rtfx,
        "compile_seconds": result.compile_seconds,
        "failed": result.failed,
    }
    print(json.dumps({**summary, "utterances": utterances}, ensure_ascii=False))
    return 1 if result.failed else 0


def _convert(options) -> int:
    from pathlib import Path

    from tdt_jax import recogniser as recognisers

    target = Path(options.target)
    is_free = target.is_dir() and not any(target.iterdir()) and options.to != "nemo"
    if target.exists() and not is_free:
        raise ValueError(f"{target} exists already")
    recogniser = recognisers.load(options.source, dtype=options.dtype)
    if options.drop_ctc:
        recogniser = recognisers.without_ctc(recogniser)
    target.parent.mkdir(parents=True, exist_ok=True)
    recognisers.save(recogniser, target, format=options.to)
    config = recogniser.config
    print(f"{target}: {config.kind}, {config.vocab_size} tokens")
    return 0


def _benchmark(options) -> int:
    from tdt_jax import benchmark

    if options.what != "loss":
        return _benchmark_model(options)

    names = options.case or list(benchmark.CASES)
    if unknown := [name for name in names if name not in benchmark.CASES]:
        raise ValueError(f"no case {unknown[0]!r}; there are {', '.join(benchmark.CASES)}")
    cases = [benchmark.CASES[name] for name in names]
    if options.batch:
        cases = [case._replace(batch=options.batch) for case in cases]
    if options.aot:
        from tdt_jax import ahead

        if options.peers or options.json:
            raise ValueError("--aot runs nothing: it goes with neither --peers nor --json")
        for case in cases:
            print(ahead.loss_report(case, dtype=options.dtype, topology=options.aot), flush=True)
        return 0
    table = benchmark.loss_table(
        cases, dtype=options.dtype, repeats=options.repeats, peers=options.peers
    )
    for case, rate, results in table:
        if options.json:
            methods = {
                name: result if isinstance(result, str) else dataclasses.asdict(result)
                for name, result in results.items()
            }
            floor = {"matmul_flops_per_second": rate, "floor_seconds": case.flops / rate}
            print(json.dumps({**case._asdict(), **floor, "methods": methods}), flush=True)
        else:
            print(benchmark.describe(case, rate, results), flush=True)
    return 0


def _benchmark_model(options) -> int:
    from tdt_jax import benchmark_encoder

    names = options.case or ["0.6b"]
    if options.what == "encoder":
        for report in benchmark_encoder.encoder_report(
            names,
            seconds=options.seconds,
            batch=options.batch or 1,
            dtype=options.dtype,
            repeats=options.repeats,
            attention_context=options.local_attention,
            peers=options.peers,
        ):
            print(report, flush=True)
        return 0
    from tdt_jax import parity

    benchmark_encoder.require_peers()
    for name in names:
        config = benchmark_encoder.MODELS.get(name)
        if config is None:
            raise ValueError(f"no case {name!r}; there are {', '.join(benchmark_encoder.MODELS)}")
        print(parity.compare(name, config, num_utterances=options.utterances), flush=True)
    return 0
