"""Checkpoints of training, through orbax: written in the background, whole or not at all.

    folder/STEP/model      parameters, by name
    folder/STEP/average    their moving average, where one is kept
    folder/STEP/optimizer  the rest of the training state

Arrays are stored under plain names such as "encoder.blocks.attention.query.kernel", whatever the
objects that hold them, and however they are split among devices and processes: they can be read
onto any other mesh.
"""

import contextlib
import logging
from pathlib import Path

import jax
import orbax.checkpoint as ocp

ITEMS = ("model", "average", "optimizer")

logger = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints in one folder; the newest `keep` stay, and the best.

    With several processes all of them make one, over the same folder, and call the same methods.
    """

    def __init__(self, folder: str | Path, *, keep: int = 3, clean: bool = False):
        """`clean` removes what was left half-written; for the one that writes, not for readers."""
        self.folder = Path(folder).absolute()
        self.keep = keep
        self._scores: dict[int, float | None] = {}
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=self, create=True, cleanup_tmp_directories=clean
            ),
            item_handlers={name: ocp.StandardCheckpointHandler() for name in ITEMS},
        )

    def save(self, step: int, *, score: float | None = None, **items) -> None:
        """Write pytrees (of ITEMS) under their names, in the background; None is left out.

        One that is there already (it was damaged, or training went on from an older one) is
        replaced. `score` says how good it is, higher being better: the best one is kept.

        Raises:
          OSError: if this or an earlier checkpoint could not be written.
        """
        arguments = {
            name: ocp.args.StandardSave(named_leaves(tree))
            for name, tree in items.items()
            if tree is not None
        }
        with self._telling():
            self._manager.wait_until_finished()
            if step in self._manager.all_steps():
                self._manager.delete(step)
            self._scores[step] = score
            self._manager.save(
                step, args=ocp.args.Composite(**arguments), custom_metadata={"score": score}
            )

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        """Orbax asks: which of its checkpoints, oldest first, are to stay?"""
        best = self.best()
        newest = len(checkpoints) - self.keep
        return [i >= newest or each.step == best for i, each in enumerate(checkpoints)]

    def steps(self) -> list[int]:
        """The steps that have a whole checkpoint, oldest first."""
        return sorted(self._manager.all_steps())

    def best(self) -> int | None:
        """The step with the highest score, of those the later one; None where none has one."""
        scores = {step: self.score(step) for step in self.steps()}
        scores = {step: score for step, score in scores.items() if score is not None}
        return max(scores, key=lambda step: (scores[step], step), default=None)

    def score(self, step: int) -> float | None:
        """What `save` was told of a step."""
        if step not in self._scores:
            try:
                metadata = self._manager.metadata(step).custom_metadata or {}
            except Exception as error:  # as in `restore`
                logger.warning("checkpoint %s: %s", self.folder / str(step), error)
                metadata = {}
            self._scores[step] = metadata.get("score")
        return self._scores[step]

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
            raise ValueError(f"checkpoint {self.folder / str(step)} is damaged: {error}") from error
        return {
            name: None if tree is None else unnamed(restored[name], tree)
            for name, tree in items.items()
        }

    def restore_newest(self, **items) -> tuple[int, dict] | None:
        """The newest checkpoint that can be read, (step, items); None if there is none at all.

        Raises:
          ValueError: if there are some but none can be read, or they are of another model.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return step, self.restore(step, **items)
            except ValueError as error:
                if step == steps[0]:
                    raise
                logger.warning("%s; trying the one before", error)
        return None

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

    def __exit__(self, *_):
        self.close()

    def _check(self, step: int, name: str, tree) -> None:
        place = f"{name!r} of checkpoint {self.folder / str(step)}"
        if not self.has(step, name):
            raise ValueError(f"there is no {place}")
        try:
            metadata = self._manager.item_metadata(step)[name]
            stored = {key: tuple(leaf.shape) for key, leaf in metadata.items()}
        except Exception as error:
            raise ValueError(f"{place} is damaged: {error}") from error
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


def named_leaves(tree) -> dict:
    """The arrays of a pytree by dotted name."""
    return {leaf_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def unnamed(leaves: dict, like):
    """Arrays by name, as a pytree of the structure of `like`."""
    paths, structure = jax.tree_util.tree_flatten_with_path(like)
    return jax.tree.unflatten(structure, [leaves[leaf_name(path)] for path, _ in paths])


def leaf_name(path) -> str:
    """The dotted name of a leaf, from its path in the pytree."""
    return jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value")
