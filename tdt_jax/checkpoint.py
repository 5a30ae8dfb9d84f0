"""Checkpoints of training, through orbax: written in the background, whole or not at all.

    folder/STEP/model      parameters, by name
    folder/STEP/average    their moving average, where one is kept
    folder/STEP/optimizer  the rest of the training state

Arrays are stored under plain names such as "encoder.blocks.attention.query.kernel", whatever the
objects that hold them.
"""

import logging
from pathlib import Path

import jax
import orbax.checkpoint as ocp

ITEMS = ("model", "average", "optimizer")

logger = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints in one folder; the newest `keep` stay."""

    def __init__(self, folder: str | Path, *, keep: int = 3):
        self.folder = Path(folder).absolute()
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True),
            item_handlers={name: ocp.StandardCheckpointHandler() for name in ITEMS},
        )

    def save(self, step: int, **items) -> None:
        """Write pytrees (of ITEMS) under their names, in the background; None is left out."""
        arguments = {
            name: ocp.args.StandardSave(named_leaves(tree))
            for name, tree in items.items()
            if tree is not None
        }
        self._manager.save(step, args=ocp.args.Composite(**arguments))

    def steps(self) -> list[int]:
        """The steps that have a whole checkpoint, oldest first."""
        return sorted(self._manager.all_steps())

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
        """Return when all that was saved is on disk."""
        self._manager.wait_until_finished()

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
