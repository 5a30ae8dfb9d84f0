"""Train a transducer.

    python train.py --config configs/quickstart.py [--set training.num_steps=500 ...]

A run lives in the folder `training.folder`. Started again, it goes on from its newest checkpoint
and ends with the very parameters that an uninterrupted run ends with.
"""

import argparse
import collections
import dataclasses
import logging
import math
import sys
import time
from pathlib import Path

import jax
from tensorboardX import SummaryWriter

from tdt_jax import config as configs
from tdt_jax import runtime, sharding
from tdt_jax import tokenizer as tokenizers
from tdt_jax.ahead_training import parse_shape, training_report
from tdt_jax.checkpoint import Checkpoints
from tdt_jax.data.batches import iterate
from tdt_jax.data.task import make_task
from tdt_jax.evaluation import evaluate
from tdt_jax.model import num_parameters
from tdt_jax.optimizer import schedule
from tdt_jax.recogniser import (
    CHECKPOINTS,
    CONFIG_FILE,
    Recogniser,
    load,
    save_setup,
    with_parameters,
)
from tdt_jax.training import Arrays, State, init_state, train_step

FLYING = 2  # steps that may run ahead of the check for NaN


def main(arguments=None) -> None:
    # Config
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--config", required=True, help="a file with get_config()")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=VALUE", dest="overrides")
    parser.add_argument("--aot", metavar="TOPOLOGY", help="only compile, for a TPU: v5e:16x16")
    parser.add_argument("--aot-batch", metavar="SECONDS,TOKENS,ROWS", help="on each of its devices")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    runtime.set_up()
    config = configs.load(options.config)
    for assignment in options.overrides:
        config = configs.override(config, assignment)
    if options.aot:
        print(training_report(config, options.aot, parse_shape(options.aot_batch)))
        return
    folder = Path(config.training.folder)

    # Mesh
    mesh = sharding.make_mesh()

    # Data
    start = time.perf_counter()
    resuming = (folder / CONFIG_FILE).is_file()
    initial = None
    if config.training.init_from and not resuming:
        initial = load(config.training.init_from)
    tokenizer = tokenizers.load(folder) if resuming else initial and initial.tokenizer
    task = make_task(config, tokenizer)
    model_config = dataclasses.replace(config.model, vocab_size=task.tokenizer.vocab_size)
    config = dataclasses.replace(config, model=model_config)
    if resuming:
        check_same(configs.from_json((folder / CONFIG_FILE).read_text()), config, folder)
    else:
        save_setup(folder, config, task.tokenizer)
    for line in task.report:
        print(line)

    # State
    run_key, init_key = jax.random.split(jax.random.key(config.training.seed))
    state = sharding.replicate(jax.jit(init_state, static_argnums=0)(config, init_key), mesh)
    checkpoints = Checkpoints(folder / CHECKPOINTS, keep=config.training.keep)
    if (found := checkpoints.restore_newest(**parts(state))) is not None:
        state = assemble(found[1])
        print(f"going on from step {found[0]} of {folder}")
    elif config.training.init_from:
        initial = initial or load(config.training.init_from)
        model = sharding.replicate(with_parameters(state.model, initial.model), mesh)
        average = None if state.average is None else jax.tree.map(lambda x: x.copy(), model)
        state = state._replace(model=model, average=average)
    del initial
    first, last = int(state.step), config.training.num_steps
    kind = f"{config.model.kind} {config.model.durations or ''}".strip()
    print(
        f"{kind}, {num_parameters(state.model) / 1e6:.2f} M parameters, "
        f"{task.tokenizer.vocab_size} tokens, on {mesh.size} {jax.devices()[0].device_kind}; "
        f"ready after {time.perf_counter() - start:.0f} s",
        flush=True,
    )

    # Loop
    writer = SummaryWriter(str(folder / "tensorboard"))
    progress = Progress(config, first)
    flying = collections.deque()
    batches = iterate(
        task.batches,
        start=first,
        stop=last,
        num_threads=config.data.num_threads,
        prefetch=config.data.prefetch,
    )
    for step, batch in batches:
        arrays = sharding.split_batch(Arrays(*batch[:4]), mesh)
        state, metrics = train_step(state, arrays, run_key, config=config, mesh=mesh)
        flying.append((step, batch, metrics))
        done = step + 1
        landing = done % config.training.save_every == 0 or done == last
        while len(flying) > (0 if landing else FLYING):
            progress.add(*flying.popleft())
        if done % config.training.log_every == 0 or done == last:
            progress.report(done, writer, failed=getattr(task.batches, "failed", {}))
        if task.dev and (done % config.training.eval_every == 0 or done == last):
            with progress.paused():
                result = evaluate(recogniser(state, task), task.dev)
            print(f"step {done}  dev {result.summary()}", flush=True)
            progress.wer = result.words.rate
            writer.add_scalar("dev/wer", result.words.rate, done)
            writer.add_scalar("dev/steps_per_second", result.steps_per_second, done)
        if landing:
            with progress.paused():
                checkpoints.save(done, **parts(state))
    checkpoints.close()
    writer.close()
    if first < last:
        print(f"{last - first} steps in {progress.seconds:.0f} s, "
              f"{progress.compile_seconds:.0f} s of them compiling")  # fmt: skip

    # Test
    for name, items in task.test.items():
        result = evaluate(recogniser(state, task), items)
        print(f"\n{name}: {result.summary()}")
        for why in result.failed.values():
            print(f"  not counted: {why}")
        for each in result.results[:: max(1, len(result.results) // 4)][:4]:
            print(f"  reference   {each.reference}\n  transcript  {each.transcript.text}")
            words = (f"{w.text}@{w.start:.2f}-{w.end:.2f}" for w in each.transcript.words)
            print("  times       " + " ".join(words))
    print(f"\ntranscribe with it: tdt-jax transcribe {folder} FILES...")


def parts(state: State) -> dict:
    """The items of a checkpoint."""
    rest = {"step": state.step, "optimizer": state.optimizer}
    return {"model": state.model, "average": state.average, "optimizer": rest}


def assemble(items: dict) -> State:
    """The inverse of `parts`."""
    rest = items["optimizer"]
    return State(rest["step"], items["model"], items["average"], rest["optimizer"])


def recogniser(state: State, task) -> Recogniser:
    """What is evaluated: the averaged parameters where they are kept."""
    model = state.model if state.average is None else state.average
    return Recogniser(jax.device_put(model, jax.devices()[0]), task.tokenizer)


def check_same(before: configs.Config, now: configs.Config, folder: Path) -> None:
    """Refuse to go on with another model; the rest may change."""
    if before.model != now.model:
        raise ValueError(
            f"{folder} holds a run of another model; give this one its own training.folder\n"
            f"there: {before.model}\nhere:  {now.model}"
        )


class Progress:
    """Counts what was trained on, stops at a NaN, and tells how it goes."""

    def __init__(self, config: configs.Config, first: int):
        self.config = config
        self.rate = schedule(config.optimizer, config.training.num_steps)
        self.first, self.shapes, self.impossible, self.wer = first, set(), 0, None
        self.seconds = self.compile_seconds = 0.0
        self.mark = time.perf_counter()
        self._clear()

    def _clear(self):
        self.losses, self.norms, self.audio, self.window = [], [], 0.0, 0.0

    def _lap(self) -> float:
        now = time.perf_counter()
        lap, self.mark = now - self.mark, now
        self.seconds += lap
        return lap

    def add(self, step: int, batch, metrics) -> None:
        """Take in one step's metrics; it ends the run if they are not finite."""
        loss, norm = float(metrics.loss), float(metrics.gradient_norm)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            per_row = zip(batch.ids, jax.device_get(metrics.transducer + metrics.ctc), strict=True)
            culprits = [name for name, value in per_row if not math.isfinite(value)]
            sys.exit(
                f"step {step}: loss {loss}, gradient norm {norm}; utterances: "
                + ", ".join(culprits or batch.ids)
            )
        self.impossible += int(metrics.num_impossible)
        lap = self._lap()
        if batch.samples.shape in self.shapes:
            self.window += lap
            self.audio += batch.num_samples.sum() / self.config.model.features.sample_rate
        else:
            self.shapes.add(batch.samples.shape)
            self.compile_seconds += lap
        self.losses.append(loss)
        self.norms.append(norm)

    def paused(self):
        """A context whose time does not count as training."""
        self._lap()
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.mark = time.perf_counter()

    def report(self, done: int, writer, failed: dict) -> None:
        """Print a line and write the scalars."""
        if not self.losses:
            return
        loss = sum(self.losses) / len(self.losses)
        norm = sum(self.norms) / len(self.norms)
        speed = self.audio / self.window if self.window else 0.0
        trained = self.seconds - self.compile_seconds
        left = trained / (done - self.first) * (self.config.training.num_steps - done)
        line = (
            f"step {done}  loss {loss:.3f}  gradient {norm:.2f}  rate {self.rate(done):.2e}  "
            f"{speed:.0f}x real time  {self.seconds:.0f} s, {left:.0f} s left"
        )
        if self.wer is not None:
            line += f"  WER {100 * self.wer:.1f} %"
        if self.impossible:
            line += f"  {self.impossible} utterances without an alignment"
        if failed:
            line += f"  {len(failed)} unreadable files, such as {next(iter(failed.values()))}"
        print(line, flush=True)
        for name, value in (("loss", loss), ("gradient_norm", norm), ("audio_speed", speed)):
            writer.add_scalar(f"train/{name}", value, done)
        writer.add_scalar("train/learning_rate", float(self.rate(done)), done)
        writer.add_scalar("train/skipped", self.impossible + len(failed), done)
        self._clear()


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"error: {error}")
