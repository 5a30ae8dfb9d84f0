"""What the log and TensorBoard report of a run: losses, speed, error rates, and what failed."""

import contextlib
import math
import sys
import time
from collections.abc import Iterator
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
    """Collects the metrics of steps, ends the run at a NaN, and reports on process 0.

    Every process has one, and all see the same metrics.
    """

    def __init__(self, config: Config, first: int, mesh: Mesh):
        """`first` is the number of steps that were done before."""
        self.seconds = self.compile_seconds = 0.0  # of training, and of the steps that compiled
        self._config, self._first, self._mesh = config, first, mesh
        self._writer = None
        if distributed.is_main_process():
            self._writer = SummaryWriter(str(Path(config.training.folder) / "tensorboard"))
        self._schedule = schedule(config.optimizer, config.training.num_steps)
        self._shapes: set[tuple[int, ...]] = set()  # of samples, of which a step has been compiled
        self._num_impossible = 0
        self._wer: float | None = None
        self._mark = time.perf_counter()
        self._start_window()

    def add(self, step: int, batch: Batch, metrics: Metrics) -> None:
        """Adds one step's metrics. Ends the run if they are not finite, naming the utterances.

        `batch` is this process's part, `metrics` are of the whole.
        """
        loss, norm = float(metrics.loss), float(metrics.gradient_norm)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            culprits = self._not_finite(batch, metrics)
            sys.exit(
                f"step {step}: loss {loss}, gradient norm {norm}; utterances: "
                + (", ".join(culprits) or "of other processes")
            )
        self._num_impossible += int(metrics.num_impossible)
        lap = self._lap()
        if batch.samples.shape in self._shapes:
            self._window_seconds += lap
            self._audio_seconds += float(metrics.audio_seconds)
        else:
            self._shapes.add(batch.samples.shape)
            self.compile_seconds += lap
        self._losses.append(loss)
        self._norms.append(norm)

    def report(self, done: int, failed: dict[str, str]) -> None:
        """Prints a line about the steps since the last one, and writes their scalars.

        All processes call it, when no step is under way: otherwise they might gather in different
        orders.

        Args:
          done: steps done.
          failed: the utterances that this process could not read, with the reasons.
        """
        failed = {
            name: why for each in distributed.all_gather(dict(failed)) for name, why in each.items()
        }
        if not self._losses:
            return
        loss = sum(self._losses) / len(self._losses)
        norm = sum(self._norms) / len(self._norms)
        rate = float(np.asarray(self._schedule(done)))
        speed = self._audio_seconds / self._window_seconds if self._window_seconds else 0.0
        trained = self.seconds - self.compile_seconds
        left = trained / (done - self._first) * (self._config.training.num_steps - done)
        line = (
            f"step {done}  loss {loss:.3f}  gradient {norm:.2f}  rate {rate:.2e}  "
            f"{speed:.0f}x real time  {self.seconds:.0f} s, {left:.0f} s left"
        )
        if self._wer is not None:
            line += f"  WER {100 * self._wer:.1f} %"
        if self._num_impossible:
            line += f"  {self._num_impossible} utterances without an alignment"
        if failed:
            line += f"  {len(failed)} unreadable files, such as {next(iter(failed.values()))}"
        self._start_window()
        if self._writer is None:
            return
        print(line, flush=True)
        scalars = {
            "loss": loss,
            "gradient_norm": norm,
            "audio_speed": speed,
            "learning_rate": rate,
            "skipped": self._num_impossible + len(failed),
        }
        for name, value in scalars.items():
            self._writer.add_scalar(f"train/{name}", value, done)

    def evaluated(self, done: int, evaluation: Evaluation, *, head: str = "") -> None:
        """Prints an evaluation on the development set after `done` steps; writes its scalars.

        Of a head beside the model's main decoder, which `head` names, these are the word errors.
        """
        if head:
            if self._writer is not None:
                print(f"step {done}  dev, {head}: {evaluation.summary()}", flush=True)
                self._writer.add_scalar(f"dev/wer_{head}", evaluation.words.rate, done)
            return
        self._wer = evaluation.words.rate
        if self._writer is not None:
            print(f"step {done}  dev {evaluation.summary()}", flush=True)
            self._writer.add_scalar("dev/wer", self._wer, done)
            if evaluation.bleu is not None:
                self._writer.add_scalar("dev/bleu", evaluation.bleu.score, done)
            self._writer.add_scalar("dev/steps_per_second", evaluation.steps_per_second, done)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Returns a context whose time does not count as training."""
        self._lap()
        try:
            yield
        finally:
            self._mark = time.perf_counter()

    def close(self) -> None:
        """Closes the files of TensorBoard."""
        if self._writer is not None:
            self._writer.close()

    def _start_window(self):
        """Forgets the steps that have been reported."""
        self._losses: list[float] = []
        self._norms: list[float] = []
        self._audio_seconds = self._window_seconds = 0.0  # without the steps that compiled

    def _lap(self) -> float:
        """Returns the seconds since the last lap, or since the end of the last pause."""
        now = time.perf_counter()
        lap, self._mark = now - self._mark, now
        self.seconds += lap
        return lap

    def _not_finite(self, batch: Batch, metrics: Metrics) -> list[str]:
        """Returns the ids of this process's utterances that may have caused a NaN."""
        losses = np.asarray(metrics.transducer) + np.asarray(metrics.ctc)
        if np.all(np.isfinite(losses)):  # the gradient is not known by utterance
            return list(batch.ids)
        rows = losses[sharding.local_rows(self._mesh, len(losses))]
        names = zip(batch.ids, rows.tolist(), strict=True)
        return [name for name, value in names if not math.isfinite(value)]
