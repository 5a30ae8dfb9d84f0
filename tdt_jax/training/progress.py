"""How training goes: what was trained on, how fast, and what was wrong with it."""

import math
import sys
import time
from pathlib import Path

import numpy as np
from jax.sharding import Mesh
from tensorboardX import SummaryWriter

from tdt_jax.config import Config
from tdt_jax.data.utterance import Batch
from tdt_jax.inference.evaluation import Evaluation
from tdt_jax.runtime import distributed, sharding
from tdt_jax.training.optimizer import schedule
from tdt_jax.training.step import Metrics


class Progress:
    """Counts what was trained on, stops at a NaN, and tells how it goes: on process 0 only.

    All processes keep one, and see the same metrics.
    """

    def __init__(self, config: Config, first: int, mesh: Mesh):
        self.config = config
        self.mesh = mesh
        self.writer = None
        if distributed.is_main_process():
            self.writer = SummaryWriter(str(Path(config.training.folder) / "tensorboard"))
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

    def add(self, step: int, batch: Batch, metrics: Metrics) -> None:
        """Take in one step's metrics; it ends the run if they are not finite.

        `batch` is this process's part, `metrics` are of the whole.
        """
        loss, norm = float(metrics.loss), float(metrics.gradient_norm)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            losses = np.asarray(metrics.transducer) + np.asarray(metrics.ctc)
            per_row = losses[sharding.local_rows(self.mesh, len(losses))]
            names = zip(batch.ids, per_row.tolist(), strict=True)
            culprits = [name for name, value in names if not math.isfinite(value)]
            if np.all(np.isfinite(losses)):  # what spoiled the gradient is not known
                culprits = list(batch.ids)
            sys.exit(
                f"step {step}: loss {loss}, gradient norm {norm}; utterances: "
                + (", ".join(culprits) or "of other processes")
            )
        self.impossible += int(metrics.num_impossible)
        lap = self._lap()
        if batch.samples.shape in self.shapes:
            self.window += lap
            self.audio += float(metrics.audio_seconds)
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

    def evaluated(self, done: int, evaluation: Evaluation) -> None:
        """Print and write what an evaluation has found."""
        self.wer = evaluation.words.rate
        if self.writer is not None:
            print(f"step {done}  dev {evaluation.summary()}", flush=True)
            self.writer.add_scalar("dev/wer", self.wer, done)
            if evaluation.bleu is not None:
                self.writer.add_scalar("dev/bleu", evaluation.bleu.score, done)
            self.writer.add_scalar("dev/steps_per_second", evaluation.steps_per_second, done)

    def report(self, done: int, failed: dict[str, str]) -> None:
        """Print a line and write the scalars; `failed` is what this process could not read.

        No step may be under way: the processes might begin to gather on either side of it.
        """
        failed = {
            name: why for each in distributed.all_gather(dict(failed)) for name, why in each.items()
        }
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
        self._clear()
        if self.writer is None:
            return
        print(line, flush=True)
        scalars = {
            "loss": loss,
            "gradient_norm": norm,
            "audio_speed": speed,
            "learning_rate": float(self.rate(done)),
            "skipped": self.impossible + len(failed),
        }
        for name, value in scalars.items():
            self.writer.add_scalar(f"train/{name}", value, done)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
