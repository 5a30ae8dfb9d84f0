"""Checkpoints: training states by step, through orbax, written in the background.

    folder/STEP/model      parameters, by name
    folder/STEP/average    their moving average, if the run keeps one
    folder/STEP/optimizer  the rest of the training state
    folder/scores.json     the scores of evaluated checkpoints: {metric: {STEP: score}}

A checkpoint is written whole or not at all. Arrays are stored under plain names such as
"encoder.blocks.attention.query.kernel", whatever objects hold them and however they are split among
devices and processes, so that they can be read onto any other mesh.
"""

import contextlib
import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from tdt_jax.runtime import distributed
from tdt_jax.runtime.files import write_atomically
from tdt_jax.runtime.pytree import from_named_leaves, named_leaves

ITEMS = ("model", "average", "optimizer")
SCORES = "scores.json"

logger = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints in a folder: the newest `keep`, and the one with the best score.

    Several processes write one checkpoint together: all use the same folder and call the same
    methods.

    Args:
      folder: of the checkpoints; made if need be.
      keep: how many of the newest are kept.
      metric: whose scores say which is the best.
      writing: whether this is the run that writes them: it removes half-written checkpoints, and
        puts damaged ones aside.
    """

    def __init__(
        self, folder: str | Path, *, keep: int = 3, metric: str = "wer", writing: bool = False
    ):
        self.folder = Path(folder).absolute()
        self.keep = keep
        self.metric = metric
        self._writing = writing
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=self, create=True, cleanup_tmp_directories=writing
            ),
            item_handlers={name: ocp.StandardCheckpointHandler() for name in ITEMS},
        )
        self._scores = self._read_scores()

    def save(self, step: int, **items: Any) -> None:
        """Writes pytrees under their names (of ITEMS) in the background; None is left out.

        Raises:
          OSError: if this checkpoint or the one before could not be written.
        """
        arguments = {
            name: ocp.args.StandardSave(named_leaves(tree))
            for name, tree in items.items()
            if tree is not None
        }
        replaced = [scores for scores in self._scores.values() if step in scores]
        for scores in replaced:
            del scores[step]  # it was another checkpoint's
        if replaced:
            self._write_scores()
        with self._write_errors():
            self._manager.wait_until_finished()
            if not self._manager.save(step, args=ocp.args.Composite(**arguments), force=True):
                raise OSError(f"orbax refuses step {step} after {self.steps()}")

    def wait(self) -> None:
        """Returns when all checkpoints are written.

        Raises:
          OSError: if one could not be written.
        """
        with self._write_errors():
            self._manager.wait_until_finished()

    def restore(self, step: int, **items: Any) -> dict[str, Any]:
        """Returns the pytrees that were saved under these names; None for None.

        Args:
          step: the checkpoint's.
          items: pytrees of the same structure and shapes, of arrays or abstract; arrays are placed
            as theirs are.

        Raises:
          ValueError: naming every missing, extra and mis-shaped array; or if a file is damaged.
        """
        wanted = {name: tree for name, tree in items.items() if tree is not None}
        for name, tree in wanted.items():
            self._check_shapes(step, name, tree)
        arguments = {
            name: ocp.args.StandardRestore(named_leaves(tree)) for name, tree in wanted.items()
        }
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(**arguments))
        except Exception as error:  # orbax and tensorstore raise many kinds for a damaged file
            place = self.folder / str(step)
            raise ValueError(f"checkpoint {place} is damaged: {_first_line(error)}") from error
        return {
            name: None if tree is None else from_named_leaves(restored[name], tree)
            for name, tree in items.items()
        }

    def restore_newest(self, **items: Any) -> tuple[int, dict[str, Any]] | None:
        """Returns (step, items) of the newest checkpoint that can be read; None without any.

        The run that writes renames newer ones, which cannot be read, to STEP.damaged.

        Raises:
          ValueError: if none can be read, or they are of another model.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                restored = self.restore(step, **items)
            except ValueError as error:
                if step == steps[0]:
                    raise
                logger.warning("%s; trying the one before", error)
                continue
            if self._writing:
                self._put_aside([other for other in steps if other > step])
            return step, restored
        return None

    def steps(self) -> list[int]:
        """Returns the steps that have a whole checkpoint, oldest first."""
        return sorted(self._manager.all_steps())

    def has(self, step: int, name: str) -> bool:
        """Returns whether the checkpoint of a step holds the item `name`."""
        return (self.folder / str(step) / name).is_dir()

    def rate(self, step: int, score: float) -> None:
        """Records the score of a step's checkpoint; higher is better."""
        self._scores.setdefault(self.metric, {})[step] = score
        self._write_scores()

    def is_rated(self, step: int) -> bool:
        """Returns whether a step's checkpoint has a score."""
        return step in self._scores.get(self.metric, {})

    def best(self) -> int | None:
        """Returns the step with the highest score, the latest of several; None without scores."""
        return self._best(self.steps())

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Returns which of orbax's checkpoints, oldest first, are kept; orbax calls it."""
        best = self._best(each.step for each in checkpoints)
        newest = len(checkpoints) - self.keep
        return [i >= newest or each.step == best for i, each in enumerate(checkpoints)]

    def close(self) -> None:
        self.wait()
        self._manager.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        # If one of several processes fails, the others might wait for it in `close` for ever.
        if kind in (None, SystemExit) or jax.process_count() == 1:
            self.close()

    def _best(self, steps: Iterable[int]) -> int | None:
        scores = self._scores.get(self.metric, {})
        rated = [step for step in steps if step in scores]
        return max(rated, key=lambda step: (scores[step], step), default=None)

    def _read_scores(self) -> dict[str, dict[int, float]]:
        path = self.folder / SCORES
        if not path.is_file():
            return {}
        try:
            return {
                metric: {int(step): float(score) for step, score in scores.items()}
                for metric, scores in json.loads(path.read_text(encoding="utf-8")).items()
            }
        except (ValueError, AttributeError) as error:
            logger.warning("%s cannot be read (%s): no checkpoint counts as the best", path, error)
            return {}

    def _write_scores(self) -> None:
        if distributed.is_main_process():
            write_atomically(self.folder / SCORES, json.dumps(self._scores, indent=2))

    def _check_shapes(self, step: int, name: str, tree: Any) -> None:
        """Raises ValueError unless a checkpoint's item holds the arrays of `tree`."""
        place = f"{name!r} of checkpoint {self.folder / str(step)}"
        if not self.has(step, name):
            raise ValueError(f"there is no {place}")
        try:
            metadata = self._manager.item_metadata(step)[name]
            stored = {key: tuple(leaf.shape) for key, leaf in metadata.items()}
        except Exception as error:
            raise ValueError(f"{place} is damaged: {_first_line(error)}") from error
        expected = {key: tuple(leaf.shape) for key, leaf in named_leaves(tree).items()}
        problems = [f"missing {key}" for key in expected if key not in stored]
        problems += [f"extra {key}" for key in stored if key not in expected]
        problems += [
            f"{key} is {stored[key]}, expected {shape}"
            for key, shape in expected.items()
            if key in stored and stored[key] != shape
        ]
        if problems:
            raise ValueError(f"{place} does not fit the model: " + "; ".join(problems))

    def _put_aside(self, steps: Sequence[int]) -> None:
        if not steps:
            return
        distributed.barrier("damaged checkpoints are put aside")
        if distributed.is_main_process():
            for step in steps:
                aside = self.folder / f"{step}.damaged"
                shutil.rmtree(aside, ignore_errors=True)
                (self.folder / str(step)).rename(aside)
        distributed.barrier("damaged checkpoints are aside")
        self._manager.reload()

    @contextlib.contextmanager
    def _write_errors(self) -> Iterator[None]:
        """Turns every error into an OSError that names the folder."""
        try:
            yield
        except Exception as error:  # tensorstore and orbax raise many kinds for a full disk
            raise OSError(
                f"a checkpoint could not be written to {self.folder}: {_first_line(error)}"
            ) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:500]
