"""Train a transducer.

    python train.py --config configs/quickstart.py [--set training.num_steps=500 ...]

A run lives in the folder `training.folder`. Started again, it continues from its newest checkpoint,
and ends with the same parameters as a run that nothing interrupted: bit for bit, on GPUs to
rounding. On several hosts each runs the same command, with --coordinator, over a folder that all of
them see.

In acts: `main` reads the options and the configuration; `train` sets up the mesh, the data and the
state, runs the loop of steps, and tests.
"""

if __name__ == "__main__":  # the imports below take seconds
    import tdt_jax_start

    tdt_jax_start.catch_interrupt()

import argparse
import collections
import dataclasses
import logging
import sys
import time
from pathlib import Path
from typing import NoReturn

import jax
import numpy as np
from jax.sharding import Mesh

from tdt_jax import config as configs
from tdt_jax import tokenizer as tokenizers
from tdt_jax.checkpoints.adapter import BASE_FILE, read_base, write_base
from tdt_jax.checkpoints.loading import load
from tdt_jax.checkpoints.native import CHECKPOINTS, CONFIG_FILE, save_setup
from tdt_jax.checkpoints.store import Checkpoints
from tdt_jax.config import Config
from tdt_jax.data.batches import iterate
from tdt_jax.data.task import Task
from tdt_jax.inference.evaluation import Evaluation, evaluate, merged
from tdt_jax.models.adapters import fingerprint, is_partial
from tdt_jax.models.transducer import with_parameters
from tdt_jax.recogniser import Recogniser
from tdt_jax.runtime import distributed, process, sharding, streams
from tdt_jax.runtime.pytree import from_named_leaves, named_leaves, num_parameters
from tdt_jax.training.memory import require_memory, with_remat
from tdt_jax.training.progress import Progress
from tdt_jax.training.resuming import check_model, check_tokenizer, check_tuning
from tdt_jax.training.step import (
    BatchArrays,
    State,
    init_state,
    train_step,
    trained_leaves,
    trained_model,
    with_trained,
)
from tdt_jax.training.tuning import (
    check_source,
    describe_tokens,
    make_tuning_task,
    with_model_of,
)
from tdt_jax.vocabulary import with_vocabulary

MAX_UNCHECKED = 2  # steps that may be under way before the oldest is checked for a NaN


def main(arguments: list[str] | None = None) -> None:
    options = parse_options(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    process.set_up()
    config = configs.override(configs.load(options.config), *options.overrides)
    if options.aot:
        from tdt_jax.benchmarks.cases import parse_shape
        from tdt_jax.benchmarks.train_step_aot import training_report

        print(training_report(config, options.aot, parse_shape(options.aot_batch)))
        return
    distributed.start(options.coordinator, options.process, options.num_processes)
    process.require_devices()
    with distributed.Stop() as stop, distributed.lock_folder(Path(config.training.folder)):
        train(config, stop)


def parse_options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train a transducer.",
        epilog="Exit codes: 0 done, 1 an error, which the last line names, 2 a mistake in the "
        "arguments, 130 and 143 stopped by Ctrl-C and SIGTERM, 141 the output is no longer read. "
        "The same command continues from the newest checkpoint.",
    )
    add = parser.add_argument
    add("--config", required=True, help="a Python file that defines get_config()")
    add(
        "--set",
        action="append",
        default=[],
        metavar="A.B=VALUE",
        dest="overrides",
        help="change a field of the configuration; may be repeated",
    )
    add(
        "--coordinator",
        default="",
        metavar="HOST:PORT",
        help="address of process 0; auto on TPU pods and in Slurm jobs",
    )
    add("--process", type=int, help="index of this process, from 0")
    add("--num-processes", type=int, help="number of processes")
    add(
        "--aot",
        metavar="TARGET",
        help="only compile, for TPUs such as v5e:16x16, h100 or h100:8, and report memory and time",
    )
    add(
        "--aot-batch",
        metavar="SECONDS,TOKENS,ROWS",
        help="batch of each of its devices [its share of the last bucket]",
    )
    return parser.parse_args(arguments)


def train(config: Config, stop: distributed.Stop) -> None:
    """Trains to the end of the run and tests. Asked to stop, it saves and exits."""
    # Mesh
    mesh = make_run_mesh(config)

    # Data
    start = time.perf_counter()
    config, task, initial = prepare_data(config, mesh)
    config = with_remat(config, mesh)
    require_memory(config, mesh)

    # State
    run_key, init_key = jax.random.split(jax.random.key(config.training.seed))
    checkpoints = Checkpoints(
        Path(config.training.folder) / CHECKPOINTS,
        keep=config.training.keep,
        metric=config.training.metric,
        writing=True,
    )
    state, restored = prepare_state(config, task, initial, checkpoints, init_key, mesh)
    del initial  # its parameters need memory
    first, last = int(state.step), config.training.num_steps
    kind = f"{config.model.kind} {config.model.durations or ''}".strip()
    part = ""
    if is_partial(config.tuning):
        part = f"{num_parameters(trained_leaves(state, config)) / 1e6:.2f} M trained, "
    log(
        f"{kind}, {num_parameters(state.model) / 1e6:.2f} M parameters, {part}"
        f"{task.tokenizer.vocab_size} tokens, on {describe_devices(mesh)}; "
        f"ready after {time.perf_counter() - start:.0f} s"
    )
    if stop.signal:
        exit_stopped(stop, f"before step {first + 1}")

    # Loop
    progress = Progress(config, first, mesh)
    unchecked, stopping = collections.deque(), False

    def is_due(done: int, every: int) -> bool:
        return done % every == 0 or done == last

    def evaluate_dev(done: int) -> bool:
        """Evaluates on the development set. Returns False if it was stopped meanwhile."""
        with progress.paused():
            evaluation = evaluate_on_all(state, task, task.dev, config, stop)
        if evaluation is not None:
            progress.evaluated(done, evaluation)
            if config.training.init_from and len(config.model.decoders) > 1:
                ctc = evaluate_on_all(state, task, task.dev, config, stop, decoder="ctc")
                if ctc is None:
                    return False
                progress.evaluated(done, ctc, head="ctc")
            if evaluation.results:
                checkpoints.rate(done, score(evaluation))
        return evaluation is not None

    if restored and task.dev and is_due(first, config.training.eval_every):
        was_evaluated = distributed.all_gather(checkpoints.is_rated(first))[0]
        stopping = not (was_evaluated or evaluate_dev(first))
    batches = iterate(
        task.batches,
        start=first,
        stop=first if stopping else last,
        num_threads=config.data.num_threads,
        prefetch=config.data.prefetch,
        rows_of=lambda size: sharding.local_rows(mesh, size).tolist(),
    )
    with checkpoints:
        for step, batch in batches:
            arrays = sharding.shard_batch(BatchArrays.of(batch), mesh)
            state, metrics = train_step(state, arrays, run_key, config=config, mesh=mesh)
            unchecked.append((step, batch, metrics))
            done = step + 1
            stopping = stop.requested(done)
            logging_now = is_due(done, config.training.log_every)
            evaluating = bool(task.dev) and is_due(done, config.training.eval_every)
            saving = stopping or evaluating or is_due(done, config.training.save_every)
            while len(unchecked) > (0 if logging_now or saving else MAX_UNCHECKED):
                progress.add(*unchecked.popleft())
            if logging_now or saving:
                jax.block_until_ready(state)
            if logging_now:
                progress.report(done, failed=getattr(task.batches, "failed", {}))
            if saving:
                with progress.paused():
                    checkpoints.save(done, **to_items(state, config))
            stopping = stopping or (evaluating and not evaluate_dev(done))
            if stopping:
                break
    progress.close()
    if stopping:
        exit_stopped(stop, f"at step {state.step}, which is saved")
    if first < last:
        log(
            f"{last - first} steps in {progress.seconds:.0f} s, "
            f"{progress.compile_seconds:.0f} s of them compiling"
        )

    # Test
    report_tests(state, task, config, stop)
    log(f"\ntranscribe with it: tdt-jax transcribe {config.training.folder} FILES...")


def make_run_mesh(config: Config) -> Mesh:
    """Returns the mesh of the devices that share the batches.

    One process leaves out devices that cannot get as many rows as the others.

    Raises:
      ValueError: if a bucket's batch cannot be split among the devices.
    """
    fsdp, num_parts = config.training.fsdp, config.training.accumulate
    sizes = [bucket.batch_size for bucket in config.data.buckets]
    devices = jax.devices()
    if jax.process_count() == 1:
        devices = devices[: sharding.num_usable_devices(sizes, fsdp, num_parts)]
    mesh = sharding.make_mesh(devices, fsdp=fsdp)
    for size in sizes:
        sharding.check_rows(mesh, size, num_parts)
    return mesh


def prepare_data(config: Config, mesh: Mesh) -> tuple[Config, Task, Recogniser | None]:
    """Returns the run's configuration and task, and the recogniser that a new run starts from.

    The configuration returned has the tokenizer's vocabulary size. A new run writes it, and the
    tokenizer, into its folder.

    Raises:
      ValueError: if the folder holds a run of another model, with another tokenizer or of other
        trained parameters, or if the data cannot be read.
    """
    folder = Path(config.training.folder)
    resuming = (folder / CONFIG_FILE).is_file()
    distributed.barrier("whether this run goes on")
    initial = before = tokenizer = None
    check_source(config)
    if resuming:
        before = configs.from_json((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        tokenizer = tokenizers.load(folder)
        config = with_model_of(config, before.model)
    elif config.training.init_from:
        initial = load_initial(config, mesh)
        tokenizer = initial.tokenizer
        config = with_model_of(config, initial.config)
    check_tokenizer(config, before, tokenizer)
    task = make_tuning_task(config, tokenizer, is_new=initial is not None)
    model_config = dataclasses.replace(config.model, vocab_size=task.tokenizer.vocab_size)
    config = dataclasses.replace(config, model=model_config)
    jax.eval_shape(lambda: init_state(config, jax.random.key(0)))  # do the patterns match?
    if before is not None:
        check_model(before, config)
        check_tuning(before, config)
    else:
        mark = ""
        if initial is not None and is_partial(config.tuning):
            mark = fingerprint(initial.model)
        if distributed.is_main_process():
            if mark:
                write_base(folder, config.training.init_from, mark)
            save_setup(folder, config, task.tokenizer)
    distributed.assert_same("what they train on", task.report)
    for line in task.report:
        log(line)
    if initial is not None:
        log(describe_tokens(initial.tokenizer, task.tokenizer, config.training.init_from))
        initial = with_vocabulary(initial, task.tokenizer)
    return config, task, initial


def load_initial(config: Config, mesh: Mesh) -> Recogniser:
    """Returns the recogniser that a run starts from.

    Raises:
      ValueError: if it cannot be loaded, or is not the base that a resumed run has begun with.
    """
    source, base = config.training.init_from, Path(config.training.folder) / BASE_FILE
    initial = load(source, sharding=sharding.replicated(mesh))
    if base.is_file():
        first, mark = read_base(base.parent)
        if fingerprint(initial.model) != mark:
            raise ValueError(
                f"{source} is not the base that {config.training.folder} has begun with: that was "
                f"{first}, with the fingerprint {mark}"
            )
    return initial


def prepare_state(
    config: Config,
    task: Task,
    initial: Recogniser | None,
    checkpoints: Checkpoints,
    key: jax.Array,
    mesh: Mesh,
) -> tuple[State, bool]:
    """Returns the state to train from, and whether it comes from a checkpoint of this run.

    1. The newest checkpoint of the run that can be read. If the run trains a part of the
       parameters, the others are those of `training.init_from`.
    2. Without one, a new state with the parameters of `training.init_from` (`initial`, if loaded).
    3. Without that, a new state with random parameters.
    """
    shapes = sharding.sharded_shapes(jax.eval_shape(lambda: init_state(config, key)), mesh)
    newest = checkpoints.restore_newest(**to_items(shapes, config))
    if newest is not None:
        step, items = newest
        log(f"going on from step {step} of {config.training.folder}")
        if not is_partial(config.tuning):
            return from_items(items, shapes), True
    else:
        placed = sharding.parameter_shardings(shapes, mesh)
        state = jax.jit(init_state, static_argnums=0, out_shardings=placed)(config, key)
        if not config.training.init_from:
            return state, False
    if initial is None:
        initial = load_initial(config, mesh)
        if config.tuning.vocabulary != "kept":
            initial = with_vocabulary(initial, task.tokenizer)
    if initial.tokenizer.pieces != task.tokenizer.pieces:
        raise ValueError(
            f"training.init_from={config.training.init_from} has other tokens than "
            f"{config.training.folder}"
        )
    model = with_parameters(shapes.model, initial.model)
    model = jax.tree.map(lambda x, like: np.asarray(x).astype(like.dtype), model, shapes.model)
    model = sharding.shard(model, mesh)
    if newest is not None:
        return from_items(newest[1], shapes._replace(model=model)), True
    state = state._replace(model=model)
    if state.average is not None:
        trained = trained_leaves(state, config)
        average = {name: trained[name].copy() for name in named_leaves(state.average)}
        state = state._replace(average=from_named_leaves(average, state.average))
    return state, False


def report_tests(state: State, task: Task, config: Config, stop: distributed.Stop) -> None:
    """Evaluates on every test set; logs error rates and a few transcripts."""
    for name, items in task.test.items():
        evaluation = evaluate_on_all(state, task, items, config, stop)
        if evaluation is None:
            exit_stopped(stop, f"in the test on {name}")
        log(f"\n{name}: {evaluation.summary()}")
        for reason in evaluation.failed.values():
            log(f"  not counted: {reason}")
        for result in evaluation.results[:: max(1, len(evaluation.results) // 4)][:4]:
            log(f"  reference   {result.reference}\n  transcript  {result.transcript.text}")
            words = (f"{w.text}@{w.start:.2f}-{w.end:.2f}" for w in result.transcript.words)
            log("  times       " + " ".join(words))


def evaluate_on_all(
    state: State, task: Task, items, config: Config, stop: distributed.Stop, *, decoder: str = ""
) -> Evaluation | None:
    """Returns the evaluation of `items`, of which each process transcribes its share.

    It evaluates the averaged parameters if the run keeps them, with adapters merged. Returns None
    if a single process is asked to stop meanwhile; several finish the evaluation first.
    """
    model = sharding.local_copies(trained_model(state, config))
    share = items[jax.process_index() :: jax.process_count()]
    bleu = config.training.metric == "bleu"
    recogniser = Recogniser(model, task.tokenizer)
    try:
        evaluation = evaluate(recogniser, share, bleu=bleu, decoder=decoder, progress=stop.check)
    except distributed.Stopped:
        return None
    return merged(distributed.all_gather(evaluation), [item.id for item in items])


def score(evaluation: Evaluation) -> float:
    """Returns what checkpoints are ranked by, higher is better: BLEU, or minus the WER."""
    return -evaluation.words.rate if evaluation.bleu is None else evaluation.bleu.score


def to_items(state: State, config: Config) -> dict:
    """Returns the items of a checkpoint: what it stores in folders of their own.

    The item "model" is what the run trains.
    """
    rest = {"step": state.step, "optimizer": state.optimizer}
    trained = trained_leaves(state, config)
    return {"model": trained, "average": state.average, "optimizer": rest}


def from_items(items: dict, state: State) -> State:
    """Returns the state of a checkpoint's items; what they lack is that of `state`."""
    rest = items["optimizer"]
    state = with_trained(state, items["model"])
    return state._replace(step=rest["step"], average=items["average"], optimizer=rest["optimizer"])


def describe_devices(mesh: Mesh) -> str:
    """Returns the devices of a mesh in words."""
    words = f"{mesh.size} {jax.devices()[0].device_kind}"
    if mesh.size < jax.device_count():
        words += f" of {jax.device_count()} (the batches cannot be split among more)"
    if mesh.shape["fsdp"] > 1:
        words += f", parameters split among {mesh.shape['fsdp']}"
    if jax.process_count() > 1:
        words += f", in {jax.process_count()} processes"
    return words


def log(line: str) -> None:
    """Prints a line, on process 0."""
    if distributed.is_main_process():
        print(line, flush=True)


def exit_stopped(stop: distributed.Stop, where: str) -> NoReturn:
    """Exits as the shell expects it of a program that a signal stopped."""
    log(f"stopped {where}; the same command goes on")
    sys.exit(128 + (stop.signal or 0))


if __name__ == "__main__":
    tdt_jax_start.release_interrupt()
    streams.set_up()
    try:
        main()
        streams.flush()
    except (Exception, KeyboardInterrupt) as error:
        distributed.exit_with(error)
