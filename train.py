"""Train a transducer.

    python train.py --config configs/quickstart.py [--set training.num_steps=500 ...]

A run lives in the folder `training.folder`. Started again, it goes on from its newest checkpoint
and ends with the very parameters that an uninterrupted run ends with. On several hosts every one
runs the same command, with --coordinator, over a folder that all of them see.
"""

if __name__ == "__main__":  # what is imported below takes seconds
    import tdt_jax_start

    tdt_jax_start.catch_interrupt()

import argparse
import collections
import dataclasses
import logging
import sys
import time
from pathlib import Path

import jax

from tdt_jax import config as configs
from tdt_jax import tokenizer as tokenizers
from tdt_jax.benchmarks.cases import parse_shape
from tdt_jax.benchmarks.train_step_aot import training_report
from tdt_jax.checkpoints.loading import load
from tdt_jax.checkpoints.native import CHECKPOINTS, CONFIG_FILE, save_setup
from tdt_jax.checkpoints.store import Checkpoints
from tdt_jax.data.batches import iterate
from tdt_jax.data.task import make_task
from tdt_jax.inference.evaluation import Evaluation, evaluate, merged
from tdt_jax.models.transducer import with_parameters
from tdt_jax.recogniser import Recogniser
from tdt_jax.runtime import distributed, process, sharding, streams
from tdt_jax.runtime.pytree import num_parameters
from tdt_jax.training.progress import Progress
from tdt_jax.training.step import BatchArrays, State, init_state, train_step

FLYING = 2  # steps that may run ahead of the check for NaN


def main(arguments=None) -> None:
    # Config
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        epilog="Exit codes: 0 all is done, 1 something is wrong, which the last line says, 2 a "
        "mistake in the arguments, 130 and 143 stopped by Ctrl-C and SIGTERM, 141 nobody reads the "
        "output any more. The same command goes on from the newest checkpoint.",
    )
    parser.add_argument("--config", required=True, help="a file with get_config(), or FILE:NAME")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=VALUE", dest="overrides")
    parser.add_argument("--coordinator", default="", metavar="HOST:PORT",
                        help="of process 0; auto on TPU pods and in Slurm jobs")  # fmt: skip
    parser.add_argument("--process", type=int, help="which one this is, from 0")
    parser.add_argument("--num-processes", type=int, help="how many there are")
    parser.add_argument("--aot", metavar="TOPOLOGY", help="only compile, for a TPU: v5e:16x16")
    parser.add_argument("--aot-batch", metavar="SECONDS,TOKENS,ROWS", help="on each of its devices")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    process.set_up()
    config = configs.override(configs.load(options.config), *options.overrides)
    if options.aot:
        print(training_report(config, options.aot, parse_shape(options.aot_batch)))
        return
    distributed.start(options.coordinator, options.process, options.num_processes)
    process.require_devices()
    with distributed.Stop() as stop, distributed.lock_folder(Path(config.training.folder)):
        train(config, stop)


def train(config: configs.Config, stop: distributed.Stop) -> None:
    """The whole run, or what is left of it; asked to stop, it saves and exits."""
    folder = Path(config.training.folder)
    say = print if distributed.is_main_process() else lambda *_, **__: None

    # Mesh
    fsdp, num_parts = config.training.fsdp, config.training.accumulate
    sizes = [bucket.batch_size for bucket in config.data.buckets]
    devices = jax.devices()
    if jax.process_count() == 1:
        devices = devices[: sharding.num_usable_devices(sizes, fsdp, num_parts)]
    mesh = sharding.make_mesh(devices, fsdp=fsdp)
    for size in sizes:
        sharding.check_rows(mesh, size, num_parts)

    # Data
    start = time.perf_counter()
    resuming = (folder / CONFIG_FILE).is_file()
    distributed.barrier("whether this run goes on")
    initial = None
    if config.training.init_from and not resuming:
        initial = load(config.training.init_from, sharding=sharding.replicated(mesh))
    before = None
    if resuming:
        before = configs.from_json((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    tokenizer = tokenizers.load(folder) if resuming else initial and initial.tokenizer
    check_tokenizer(config, before, tokenizer)
    task = make_task(config, tokenizer)
    model_config = dataclasses.replace(config.model, vocab_size=task.tokenizer.vocab_size)
    config = dataclasses.replace(config, model=model_config)
    if resuming:
        check_same(before, config, folder)
    elif distributed.is_main_process():
        save_setup(folder, config, task.tokenizer)
    distributed.assert_same("what they train on", task.report)
    for line in task.report:
        say(line)
    if initial is not None:
        say(f"tokens: the {tokenizer.vocab_size} of {config.training.init_from}")

    # State
    run_key, init_key = jax.random.split(jax.random.key(config.training.seed))
    shapes = jax.eval_shape(lambda: init_state(config, init_key))
    checkpoints = Checkpoints(
        folder / CHECKPOINTS,
        keep=config.training.keep,
        metric=config.training.metric,
        writing=True,
    )
    found = checkpoints.restore_newest(**parts(sharding.sharded_shapes(shapes, mesh)))
    if found is not None:
        state = assemble(found[1])
        say(f"going on from step {found[0]} of {folder}")
    else:
        placed = sharding.parameter_shardings(shapes, mesh)
        state = jax.jit(init_state, static_argnums=0, out_shardings=placed)(config, init_key)
        if config.training.init_from:
            initial = initial or load(config.training.init_from, sharding=sharding.replicated(mesh))
            if initial.tokenizer.pieces != task.tokenizer.pieces:
                raise ValueError(
                    f"training.init_from={config.training.init_from} has other tokens than {folder}"
                )
            model = sharding.shard(with_parameters(state.model, initial.model), mesh)
            average = None if state.average is None else jax.tree.map(lambda x: x.copy(), model)
            state = state._replace(model=model, average=average)
    del initial
    first, last = int(state.step), config.training.num_steps
    kind = f"{config.model.kind} {config.model.durations or ''}".strip()
    say(
        f"{kind}, {num_parameters(state.model) / 1e6:.2f} M parameters, "
        f"{task.tokenizer.vocab_size} tokens, on {describe(mesh)}; "
        f"ready after {time.perf_counter() - start:.0f} s",
        flush=True,
    )
    if stop.signal:
        say(f"stopped before step {first + 1}; the same command goes on", flush=True)
        sys.exit(128 + stop.signal)

    # Loop
    progress = Progress(config, first, mesh)
    flying, stopping = collections.deque(), False

    def has_test(done: int) -> bool:
        return bool(task.dev) and (done % config.training.eval_every == 0 or done == last)

    def test(done: int) -> bool:
        """Evaluate on the development set; False if stopped meanwhile."""
        with progress.paused():
            result = evaluate_on_all(state, task, task.dev, config, stop)
        if result is not None:
            progress.evaluated(done, result)
            if result.results:
                checkpoints.rate(done, score(result))
        return result is not None

    if (
        found is not None
        and has_test(first)
        and not distributed.all_gather(checkpoints.is_rated(first))[0]
    ):
        stopping = not test(first)  # the run ended before it was
    batches = iterate(
        task.batches,
        start=first,
        stop=first if stopping else last,
        num_threads=config.data.num_threads,
        prefetch=config.data.prefetch,
        rows_of=lambda size: sharding.local_rows(mesh, size),
    )
    with checkpoints:
        for step, batch in batches:
            arrays = sharding.shard_batch(BatchArrays.of(batch), mesh)
            state, metrics = train_step(state, arrays, run_key, config=config, mesh=mesh)
            flying.append((step, batch, metrics))
            done = step + 1
            stopping = stop.requested(done)
            telling = done % config.training.log_every == 0 or done == last
            testing = has_test(done)
            saving = stopping or testing or done % config.training.save_every == 0 or done == last
            while len(flying) > (0 if telling or saving else FLYING):
                progress.add(*flying.popleft())
            if telling or saving:
                jax.block_until_ready(state)
            if telling:
                progress.report(done, failed=getattr(task.batches, "failed", {}))
            if saving:
                with progress.paused():
                    checkpoints.save(done, **parts(state))
            stopping = stopping or (testing and not test(done))
            if stopping:
                break
    progress.close()
    if stopping:
        say(f"stopped at step {state.step}, which is saved; the same command goes on", flush=True)
        sys.exit(128 + stop.signal)
    if first < last:
        say(f"{last - first} steps in {progress.seconds:.0f} s, "
            f"{progress.compile_seconds:.0f} s of them compiling")  # fmt: skip

    # Test
    for name, items in task.test.items():
        result = evaluate_on_all(state, task, items, config, stop)
        if result is None:
            say(f"stopped in the test on {name}; the same command goes on", flush=True)
            sys.exit(128 + stop.signal)
        say(f"\n{name}: {result.summary()}")
        for why in result.failed.values():
            say(f"  not counted: {why}")
        for each in result.results[:: max(1, len(result.results) // 4)][:4]:
            say(f"  reference   {each.reference}\n  transcript  {each.transcript.text}")
            words = (f"{w.text}@{w.start:.2f}-{w.end:.2f}" for w in each.transcript.words)
            say("  times       " + " ".join(words))
    say(f"\ntranscribe with it: tdt-jax transcribe {folder} FILES...")


def parts(state: State) -> dict:
    """The items of a checkpoint."""
    rest = {"step": state.step, "optimizer": state.optimizer}
    return {"model": state.model, "average": state.average, "optimizer": rest}


def assemble(items: dict) -> State:
    """The inverse of `parts`."""
    rest = items["optimizer"]
    return State(rest["step"], items["model"], items["average"], rest["optimizer"])


def evaluate_on_all(
    state: State, task, items, config: configs.Config, stop: distributed.Stop
) -> Evaluation | None:
    """Every process's devices take its share, with the averaged parameters where they are kept.

    None if a single process is asked to stop meanwhile; several go on to the end.
    """
    model = sharding.local_copies(state.model if state.average is None else state.average)
    share = items[jax.process_index() :: jax.process_count()]
    bleu = config.training.metric == "bleu"
    recogniser = Recogniser(model, task.tokenizer)
    try:
        mine = evaluate(recogniser, share, bleu=bleu, progress=stop.check)
    except distributed.Stopped:
        return None
    found = distributed.all_gather(mine)
    return merged(found, [item.id for item in items])


def score(result: Evaluation) -> float:
    """How good it is: higher is better."""
    return -result.words.rate if result.bleu is None else result.bleu.score


def describe(mesh) -> str:
    """The devices in words."""
    words = f"{mesh.size} {jax.devices()[0].device_kind}"
    if mesh.size < jax.device_count():
        words += f" of {jax.device_count()} (the batches cannot be split among more)"
    if mesh.shape["fsdp"] > 1:
        words += f", parameters split among {mesh.shape['fsdp']}"
    if jax.process_count() > 1:
        words += f", in {jax.process_count()} processes"
    return words


def check_same(before: configs.Config, now: configs.Config, folder: Path) -> None:
    """Refuse to go on with another model; the rest may change."""

    def meaning(config: configs.Config):
        encoder = dataclasses.replace(
            config.model.encoder, remat=True, remat_policy=configs.REMAT_POLICIES[0], unroll=1
        )
        return dataclasses.replace(config.model, encoder=encoder, dtype="float32")

    if different := differences(meaning(before), meaning(now), "model"):
        raise ValueError(
            f"{folder} holds a run of another model; give this one its own training.folder: "
            + ", ".join(different)
        )


def differences(before, now, name: str) -> list[str]:
    """The fields in which two configurations differ, in words."""
    if not dataclasses.is_dataclass(before) or type(before) is not type(now):
        return [] if before == now else [f"{name} is {before} there and {now} here"]
    found = []
    for each in dataclasses.fields(now):
        values = getattr(before, each.name), getattr(now, each.name)
        found += differences(*values, f"{name}.{each.name}")
    return found


def check_tokenizer(config: configs.Config, before: configs.Config | None, tokenizer) -> None:
    """Refuse another tokenizer than that of the run, or of the checkpoint that it starts from."""
    folder, asked = config.training.folder, config.tokenizer
    if before is not None and not asked.model:
        then, now = dataclasses.replace(before.tokenizer, model=""), asked
        if asked.kind == "characters":  # as many as the text has
            now = dataclasses.replace(asked, vocab_size=then.vocab_size)
        if different := differences(then, now, "tokenizer"):
            raise ValueError(
                f"{folder} holds a run with another tokenizer; give this one its own "
                f"training.folder: {', '.join(different)}"
            )
    elif tokenizer is not None and asked.model:
        pieces = tokenizers.load(asked.model).pieces
        if pieces != tokenizer.pieces:
            whose = config.training.init_from if before is None else folder
            raise ValueError(
                f"{whose} has another tokenizer, of {tokenizer.vocab_size} tokens, than "
                f"tokenizer.model={asked.model}, of {len(pieces)}"
            )


if __name__ == "__main__":
    tdt_jax_start.release_interrupt()
    streams.set_up()
    try:
        main()
        streams.flush()
    except (Exception, KeyboardInterrupt) as error:
        distributed.exit_with(error)
