"""The command line: tdt-jax transcribe | evaluate | benchmark."""

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
    command.add_argument("checkpoint", help="the folder of a training run or of a saved recogniser")
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
    command.add_argument("checkpoint", help="the folder of a training run or of a saved recogniser")
    command.add_argument("manifest")
    command.add_argument("--json", action="store_true", help="the result, with every transcript")
    command.add_argument("--batch-size", type=_positive, default=8, help="utterances at a time [8]")

    command = commands.add_parser(
        "benchmark",
        help="speed and memory, measured here",
        description="Measure on this machine. `loss`: the transducer loss, forward and backward, "
        "from frames and states to the gradients of joint, frames and states, against the time "
        "that its matrix products take alone.",
    )
    command.set_defaults(run=_benchmark)
    command.add_argument("what", choices=["loss"])
    command.add_argument(
        "--case", action="append", metavar="NAME", help="small, v2, v3 or long; may repeat [all]"
    )
    command.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    command.add_argument("--repeats", type=_positive, default=5, help="runs, for the median [5]")
    command.add_argument(
        "--peers", action="store_true", help="beside transformers' tdt_loss, if it is installed"
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


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def _load(checkpoint: str):
    from tdt_jax import recogniser, runtime

    runtime.set_up()
    return recogniser.load(checkpoint)


def _transcribe(options) -> int:
    from tdt_jax.transcribe import transcribe

    failed: dict[int, str] = {}
    recogniser = _load(options.checkpoint)
    transcripts = transcribe(
        recogniser, options.files, batch_size=options.batch_size, failed=failed
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
    result = evaluate(_load(options.checkpoint), entries, buckets)
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


def _benchmark(options) -> int:
    from tdt_jax import benchmark

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
