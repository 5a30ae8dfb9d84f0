"""Checkpoints of training, through orbax: written in the background, whole or not at all.

    folder/STEP/model      parameters, by name
    folder/STEP/average    their moving average, where one is kept
    folder/STEP/optimizer  the rest of the training state
    folder/scores.json     how good the evaluated ones are: {metric: {STEP: score}}

Arrays are stored under plain names such as "encoder.blocks.attention.query.kernel", whatever the
objects that hold them, and however they are split among devices and processes: they can be read
onto any other mesh.
"""

import contextlib
import json
import logging
import shutil
from pathlib import Path

import jax
import orbax.checkpoint as ocp

from tdt_jax.runtime import distributed
from tdt_jax.runtime.files import write_atomically
from tdt_jax.runtime.pytree import from_named_leaves, named_leaves

ITEMS = ("model", "average", "optimizer")
SCORES = "scores.json"

logger = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints in one folder; the newest `keep` stay, and the best.

    With several processes all of them make one, over the same folder, and call the same methods.
    """

    def __init__(
        self, folder: str | Path, *, keep: int = 3, metric: str = "wer", writing: bool = False
    ):
        """`writing` is for the one that writes, not for readers: what was left half-written goes.

        The best is that of the highest score in `metric`.
        """
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

    def save(self, step: int, **items) -> None:
        """Write pytrees (of ITEMS) under their names, in the background; None is left out.

        Raises:
          OSError: if this or an earlier checkpoint could not be written.
        """
        arguments = {
            name: ocp.args.StandardSave(named_leaves(tree))
            for name, tree in items.items()
            if tree is not None
        }
        before = [scores for scores in self._scores.values() if step in scores]
        for scores in before:
            del scores[step]  # it was of another checkpoint
        if before:
            self._write_scores()
        with self._telling():
            self._manager.wait_until_finished()
            arguments = ocp.args.Composite(**arguments)
            if not self._manager.save(step, args=arguments, force=True):
                raise OSError(f"orbax refuses step {step} after {self.steps()}")

    def rate(self, step: int, score: float) -> None:
        """Remember how good the checkpoint of a step is; higher is better."""
        self._scores.setdefault(self.metric, {})[step] = score
        self._write_scores()

    def _write_scores(self) -> None:
        if distributed.is_main_process():
            write_atomically(self.folder / SCORES, json.dumps(self._scores, indent=2))

    def is_rated(self, step: int) -> bool:
        """Whether it is known how good the checkpoint of a step is."""
        return step in self._scores.get(self.metric, {})

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        """Orbax asks: which of its checkpoints, oldest first, are to stay?"""
        best = self._best(each.step for each in checkpoints)
        newest = len(checkpoints) - self.keep
        return [i >= newest or each.step == best for i, each in enumerate(checkpoints)]

    def steps(self) -> list[int]:
        """The steps that have a whole checkpoint, oldest first."""
        return sorted(self._manager.all_steps())

    def best(self) -> int | None:
        """The step with the highest score, of those the latest; None where none has one."""
        return self._best(self.steps())

    def _best(self, steps) -> int | None:
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

    def restore(self, step: int, **items) -> dict:
        """Read pytrees of the same structure and shapes as those given (arrays or abstract).

        None comes back as None.

        Raises:
          ValueError: naming every missing, extra and mis-shaped array; or that a file is damaged.
        """
        wanted = {name: tree for name, tree in items.items() if tree is not None}
        for name, tree in wanted.items():
            self._check(step, name, tree)
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

    def restore_newest(self, **items) -> tuple[int, dict] | None:
        """The newest checkpoint that can be read, (step, items); None if there is none at all.

        Who is writing puts newer ones, which could not be read, aside as STEP.damaged.

        Raises:
          ValueError: if there are some but none can be read, or they are of another model.
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

    def _put_aside(self, steps: list[int]) -> None:
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

    def has(self, step: int, name: str) -> bool:
        """Whether the checkpoint of `step` holds an item `name`."""
        return (self.folder / str(step) / name).is_dir()

    def wait(self) -> None:
        """Return when all that was saved is on disk.

        Raises:
          OSError: if it could not be written.
        """
        with self._telling():
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _telling(self):
        try:
            yield
        except Exception as error:  # whatever tensorstore and orbax make of a full disk
            reason = str(error).partition("\n")[0]
            raise OSError(
                f"a checkpoint could not be written to {self.folder}: {reason}"
            ) from error

    def close(self) -> None:
        self.wait()
        self._manager.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        # Of several processes that did not all come to the same end, others might never close.
        if kind in (None, SystemExit) or jax.process_count() == 1:
            self.close()

    def _check(self, step: int, name: str, tree) -> None:
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


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:500]
