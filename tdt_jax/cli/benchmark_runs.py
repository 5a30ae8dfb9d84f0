"""What `tdt-jax benchmark` does, a function for each kind: options in, exit code out."""

import dataclasses
import importlib.util
import json
from pathlib import Path

from tdt_jax.cli.options import complain


def loss(options) -> int:
    from tdt_jax.benchmarks import cases, loss

    names = options.case or list(cases.CASES)
    if unknown := [name for name in names if name not in cases.CASES]:
        raise ValueError(f"no case {unknown[0]!r}; there are {', '.join(cases.CASES)}")
    chosen = [cases.CASES[name] for name in names]
    if options.batch:
        chosen = [case._replace(batch=options.batch) for case in chosen]
    if options.aot:
        from tdt_jax.benchmarks import loss_aot

        if options.peers or options.json:
            raise ValueError("--aot runs nothing: it goes with neither --peers nor --json")
        for case in chosen:
            print(loss_aot.loss_report(case, dtype=options.dtype, topology=options.aot), flush=True)
        return 0
    table = loss.loss_table(
        chosen, dtype=options.dtype, repeats=options.repeats, peers=options.peers
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
            print(loss.describe(case, rate, results), flush=True)
    return 0


def decode(options) -> int:
    from tdt_jax.benchmarks import decoder

    if options.tdt is None:
        for report in decoder.decoder_report(
            options.case or ["0.6b", "0.6b-v2", "rnnt-0.6b"],
            batches=options.batch or (1, 4, 32),
            seconds=options.seconds,
            repeats=options.repeats,
            peers=options.peers,
        ):
            print(report, flush=True)
        return 0
    if options.manifest is None:
        raise ValueError("benchmark decode takes TDT RNNT MANIFEST, or none of them")
    if options.case or options.peers or len(options.batch or []) > 1:
        raise ValueError("two checkpoints go with neither --case nor --peers, and with one --batch")
    return _compare(options)


def _compare(options) -> int:
    from tdt_jax.benchmarks import silence
    from tdt_jax.checkpoints import loading
    from tdt_jax.data.sources import read_source
    from tdt_jax.runtime import process

    entries = read_source(options.manifest)
    process.set_up()
    failed: dict[str, str] = {}
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError("the plot needs matplotlib: pip install 'tdt-jax[notebook]'")
    if not Path(options.plot).absolute().parent.is_dir():
        raise ValueError(f"there is no folder for --plot {options.plot}")
    rows = silence.compare(
        loading.load(options.tdt),
        loading.load(options.rnnt),
        entries,
        shares=options.silence,
        batch_size=(options.batch or [1])[0],
        repeats=options.repeats,
        failed=failed,
    )
    if options.json:
        print(*map(json.dumps, silence.to_json(rows)), sep="\n", flush=True)
    else:
        print(silence.describe(rows), flush=True)
    figure = silence.plot(rows)[0].figure
    figure.savefig(options.plot, dpi=150)
    return _named(failed)


def long(options) -> int:
    from tdt_jax.benchmarks import long_form
    from tdt_jax.checkpoints import loading
    from tdt_jax.data.sources import read_source
    from tdt_jax.runtime import process

    entries = read_source(options.manifest)
    process.set_up()
    failed: dict[str, str] = {}
    for row in long_form.measure(
        loading.load(options.model),
        entries,
        minutes=options.minutes,
        gaps=options.gap,
        leads=options.lead,
        near_silence=options.near_silence,
        rights=options.right,
        piece_seconds=options.piece_seconds,
        normaliser=options.normaliser,
        failed=failed,
    ):
        print(json.dumps(row._asdict()) if options.json else long_form.describe(row),
              flush=True)  # fmt: skip
    return _named(failed)


def _named(failed: dict[str, str]) -> int:
    """Say what could not be read; the exit code."""
    for why in failed.values():
        complain(f"not counted: {why}")
    return 1 if failed else 0


def encoder(options) -> int:
    from tdt_jax.benchmarks import encoder

    for report in encoder.encoder_report(
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


def parity(options) -> int:
    from tdt_jax.benchmarks import cases, encoder, parity

    encoder.require_peers()
    for name in options.case or ["0.6b"]:
        config = cases.MODELS.get(name)
        if config is None:
            raise ValueError(f"no case {name!r}; there are {', '.join(cases.MODELS)}")
        print(parity.compare(name, config, num_utterances=options.utterances), flush=True)
    return 0


def data(options) -> int:
    from tdt_jax import config
    from tdt_jax.benchmarks import data

    chosen = config.override(config.load(options.config), *options.overrides)
    rows = data.measure(chosen, threads=options.threads or (1, 2, 4), seconds=options.seconds)
    for row in rows:
        print(json.dumps(row._asdict()) if options.json else row.describe(), flush=True)
    return 0


def train(options) -> int:
    from tdt_jax import config
    from tdt_jax.benchmarks import train_step
    from tdt_jax.benchmarks.cases import parse_shape

    shape = parse_shape(options.batch)
    pairs = [
        (name, train_step.case(name), shape or train_step.SHAPE)
        for name in options.case or ([] if options.config else ["small", "medium"])
    ]
    if options.config:
        chosen = config.load(options.config)
        pairs.append((options.config, chosen, shape))
    for name, chosen, shape in pairs:
        chosen = config.override(chosen, *options.overrides)
        print(train_step.report(name, chosen, shape, repeats=options.repeats), flush=True)
    return 0
