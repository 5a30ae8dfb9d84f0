"""tdt-jax benchmark: loss | encoder | parity."""

import dataclasses
import json

from tdt_jax.cli_options import context, positive


def add_benchmark(add) -> None:
    """Add the command and what it measures."""
    command = add(
        "benchmark",
        None,
        "speed and memory, measured here",
        "Measure on this machine. Figures of one call compare with each other, with nothing else.",
    )
    kinds = command.add_subparsers(required=True, metavar="WHAT")

    def kind(name: str, run, help: str):
        parser = kinds.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        parser.set_defaults(run=run)
        return parser

    loss = kind(
        "loss",
        _loss,
        "the transducer loss, forward and backward, from frames and states to the gradients of "
        "joint, frames and states, against the time that its matrix products take alone",
    )
    loss.add_argument(
        "--case", action="append", metavar="NAME", help="small, v2, v3 or long; may repeat [all]"
    )
    loss.add_argument("--batch", type=positive, help="another B than the case's")
    loss.add_argument(
        "--aot", metavar="TOPOLOGY", help="no run: what a TPU's compiler estimates, for v5e:2x2"
    )
    loss.add_argument("--json", action="store_true", help="one JSON object a case")

    encoder = kind(
        "encoder", _encoder, "the encoder of a Parakeet's size, of random weights, likewise"
    )
    _add_cases(encoder)
    encoder.add_argument("--seconds", type=float, default=30.0, help="of audio [30]")
    encoder.add_argument("--batch", type=positive, default=1, help="utterances [1]")
    encoder.add_argument(
        "--local-attention", type=context, metavar="LEFT,RIGHT", help="frames seen"
    )
    for parser in (loss, encoder):
        parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")

    parity = kind(
        "parity",
        _parity,
        "a Parakeet of transformers' with random weights, saved, loaded here and compared stage by "
        "stage and label by label (needs torch and transformers)",
    )
    _add_cases(parity)
    parity.add_argument("--utterances", type=positive, default=200, help="that are decoded [200]")
    for parser in (loss, encoder):
        parser.add_argument("--repeats", type=positive, default=5, help="of which the median [5]")
        parser.add_argument(
            "--peers", action="store_true", help="beside transformers, if it is installed"
        )


def _add_cases(parser) -> None:
    parser.add_argument(
        "--case",
        action="append",
        metavar="NAME",
        help="110m, 0.6b, 1.1b or rnnt-0.6b; may repeat [0.6b]",
    )


def _loss(options) -> int:
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


def _encoder(options) -> int:
    from tdt_jax import benchmark_encoder

    for report in benchmark_encoder.encoder_report(
        options.case or ["0.6b"],
        seconds=options.seconds,
        batch=options.batch,
        dtype=options.dtype,
        repeats=options.repeats,
        attention_context=options.local_attention,
        peers=options.peers,
    ):
        print(report, flush=True)
    return 0


def _parity(options) -> int:
    from tdt_jax import benchmark_encoder, parity

    benchmark_encoder.require_peers()
    for name in options.case or ["0.6b"]:
        config = benchmark_encoder.MODELS.get(name)
        if config is None:
            raise ValueError(f"no case {name!r}; there are {', '.join(benchmark_encoder.MODELS)}")
        print(parity.compare(name, config, num_utterances=options.utterances), flush=True)
    return 0
