"""Checkpoints by step: which are kept, what comes back, on which mesh, and what damage does."""

import shutil

import jax
import numpy as np
import pytest

from tdt_jax.checkpoints.store import Checkpoints
from tdt_jax.runtime import sharding


def largest_file(path):
    return max((f for f in path.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)


def test_newest_are_kept_and_read(tmp_path):
    with Checkpoints(tmp_path / "c", keep=2) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(
                step, model={"a": np.full((3,), float(step), np.float32)}, average=None
            )
        checkpoints.wait()
        assert checkpoints.steps() == [2, 3]
        step, items = checkpoints.restore_newest(
            model={"a": np.zeros((3,), np.float32)}, average=None
        )
    assert step == 3 and items["average"] is None
    np.testing.assert_array_equal(items["model"]["a"], [3.0] * 3)


def test_the_best_stays(tmp_path):
    """By the metric in question; unless it is written again."""

    def write(step, score=None):
        checkpoints.save(step, model={"a": np.full((3,), float(step), np.float32)})
        if score is not None:
            checkpoints.rate(step, score)

    with Checkpoints(tmp_path / "c", keep=1) as checkpoints:
        for step, score in ((1, -0.5), (2, -0.2), (3, -0.2), (4, -0.4), (5, None)):
            write(step, score)
        checkpoints.wait()
        assert checkpoints.best() == 3 and checkpoints.steps() == [3, 5]
    with Checkpoints(tmp_path / "c", keep=1) as checkpoints:
        assert checkpoints.best() == 3
        write(6)
        checkpoints.wait()
        assert checkpoints.steps() == [3, 6]
    with Checkpoints(tmp_path / "c", metric="bleu") as checkpoints:
        assert checkpoints.best() is None
    shutil.rmtree(tmp_path / "c" / "3")
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.is_rated(3)
        write(3)
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.steps() == [3, 6] and not checkpoints.is_rated(3)
    (tmp_path / "c" / "scores.json").write_text("[1")
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.best() is None


def test_what_is_older_than_a_damaged_one_is_written_all_the_same(tmp_path):
    with Checkpoints(tmp_path / "c") as checkpoints:
        for step in (1000, 2000, 3000):
            checkpoints.save(step, model={"a": np.arange(5000, dtype=np.float32)})
    damaged = largest_file(tmp_path / "c" / "3000")
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    with Checkpoints(tmp_path / "c", keep=1, writing=True) as checkpoints:
        assert checkpoints.restore_newest(model={"a": np.zeros(5000, np.float32)})[0] == 2000
        checkpoints.save(2500, model={"a": np.arange(5000, dtype=np.float32)})
    assert (tmp_path / "c" / "3000.damaged").is_dir()
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.steps() == [2500]
        with pytest.raises(OSError, match="could not be written"):
            checkpoints.save(2500, model={"a": np.arange(5000, dtype=np.float32)})


def test_no_checkpoint_is_none(tmp_path):
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.restore_newest(model={"a": np.zeros(3)}) is None


def test_a_checkpoint_moves_to_another_mesh(tmp_path):
    tree = {"a": np.arange(16, dtype=np.float32), "n": np.int32(7)}
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(1, model=sharding.shard(tree, sharding.make_mesh()))
        checkpoints.wait()
        for devices in (jax.devices()[:1], jax.devices()[:4]):
            mesh = sharding.make_mesh(devices)
            _, items = checkpoints.restore_newest(
                model=sharding.shard(jax.tree.map(np.zeros_like, tree), mesh)
            )
            jax.tree.map(np.testing.assert_array_equal, items["model"], tree)
            assert items["model"]["a"].sharding.mesh.size == len(devices)


def test_all_misfits_are_named_at_once(tmp_path):
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(1, model={"a": np.zeros(3), "b": np.zeros(2)})
        checkpoints.wait()
        with pytest.raises(ValueError, match=r"missing c; extra b; a is \(3,\), expected \(4,\)"):
            checkpoints.restore(1, model={"a": np.zeros(4), "c": np.zeros(2)})
        with pytest.raises(ValueError, match="there is no 'average'"):
            checkpoints.restore(1, average={"a": np.zeros(4)})


def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(tmp_path):
    rng = np.random.default_rng(0)
    with Checkpoints(tmp_path / "c") as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, model={"a": rng.normal(size=5000).astype(np.float32)})
        checkpoints.wait()
    damaged = largest_file(tmp_path / "c" / "2")
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    with Checkpoints(tmp_path / "c") as checkpoints:
        with pytest.raises(ValueError, match="damaged"):
            checkpoints.restore(2, model={"a": np.zeros(5000, np.float32)})
        step, _ = checkpoints.restore_newest(model={"a": np.zeros(5000, np.float32)})
    assert step == 1
