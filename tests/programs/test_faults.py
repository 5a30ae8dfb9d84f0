"""A run that anything stops continues from its newest complete checkpoint, to the same bits."""

import re
import shutil
import signal
import time

import numpy as np
import pytest
from program import Program, arrays, assert_same_bits, finish

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Program(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """The folder of a run that nothing stopped, and the arrays of its last checkpoint."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    finish(run(folder))
    return folder, arrays(folder, 12)


def stop_after(process, pattern: str, signal_number: int) -> str:
    """Sends a signal when a line matches. Returns the output up to that line."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if re.match(pattern, line):
            process.send_signal(signal_number)
            return "".join(lines)
    raise AssertionError("".join(lines))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends(run, whole, tmp_path, number):
    """At a step at which no checkpoint is due."""
    process = run(tmp_path / "run", "training.save_every=100", "training.log_every=1")
    stop_after(process, "step 2 ", number)
    output = finish(process, code=128 + number)
    assert "saving, then ending" in output and "Traceback" not in output
    (step,) = re.findall(r"stopped at step (\d+), which is saved", output)
    assert 2 < int(step) < 12
    output = finish(run(tmp_path / "run", "training.save_every=100"))
    assert f"going on from step {step} " in output
    assert_same_bits(arrays(tmp_path / "run", 12), whole[1])


def test_a_signal_ends_an_evaluation(run, whole, tmp_path):
    """The step is saved, and evaluated when the run continues."""
    process = run(tmp_path / "run", "data.telephone.num_test=100")
    stop_after(process, "step 12 ", signal.SIGTERM)
    output = finish(process, code=128 + signal.SIGTERM)
    assert "stopped at step 12, which is saved" in output and "dev" not in output
    assert_same_bits(arrays(tmp_path / "run", 12), whole[1])
    assert "step 12  dev WER" in finish(run(tmp_path / "run"))
    assert "dev" not in finish(run(tmp_path / "run"))


def test_a_signal_before_the_first_step(run, tmp_path):
    process = run(tmp_path / "run")
    stop_after(process, "TDT", signal.SIGTERM)
    output = finish(process, code=128 + signal.SIGTERM)
    assert re.search("stopped (before step 1;|at step 1, which is saved)", output)


def test_killed_again_and_again(run, whole, tmp_path):
    """SIGKILL at random moments: during start, training or writing."""
    rng = np.random.default_rng(1)
    kills = 0
    for _ in range(40):
        process = run(tmp_path / "run", "training.save_every=1")
        output = []
        for line in process.stdout:
            output.append(line)
            if line.startswith("TDT") and kills < 4:
                time.sleep(rng.uniform(0.3, 2.5))
                process.kill()
                kills += 1
        if process.wait() == 0:
            break
        assert process.returncode == -signal.SIGKILL, "".join(output)
    assert kills == 4
    assert_same_bits(arrays(tmp_path / "run", 12), whole[1])


def damage(folder, step):
    """Cuts the largest file of a checkpoint in half."""
    files = [f for f in (folder / "checkpoints" / str(step)).rglob("*") if f.is_file()]
    largest = max(files, key=lambda f: f.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


def test_damaged_and_half_written_checkpoints(run, whole, tmp_path):
    """The newest two are damaged, one more is half-written: the run continues from the third."""
    folder = shutil.copytree(whole[0], tmp_path / "run")
    shutil.rmtree(folder / "checkpoints" / "12")
    finish(run(folder, "training.num_steps=11", "training.save_every=1"))
    # as orbax leaves it when it is killed before the last rename
    half = folder / "checkpoints" / "12.orbax-checkpoint-tmp"
    shutil.copytree(folder / "checkpoints" / "11", half)
    (half / "_CHECKPOINT_METADATA").unlink()
    damage(folder, 11)
    damage(folder, 10)
    # It writes checkpoints at the steps of damaged ones, and keeps only the newest complete one.
    output = finish(run(folder, "training.save_every=1", "training.keep=1"))
    assert output.count("trying the one before") == 2
    assert "going on from step 9 " in output
    assert not half.exists()
    names = {path.name for path in (folder / "checkpoints").iterdir() if path.is_dir()}
    assert names == {"12", "10.damaged", "11.damaged"}
    assert_same_bits(arrays(folder, 12), whole[1])


def test_a_nan_is_never_saved(run, tmp_path):
    """Not even when an evaluation is due at once; earlier checkpoints stay."""
    diverging = "optimizer.learning_rate=1e38", "training.eval_every=1", "training.log_every=1"
    finish(run(tmp_path / "run", "training.num_steps=1", *diverging[1:]))
    output = finish(run(tmp_path / "run", *diverging), code=1)
    assert "loss nan" in output and "Traceback" not in output
    steps = [int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir() if p.is_dir()]
    for step in steps:
        for leaves in arrays(tmp_path / "run", step).values():
            assert all(np.all(np.isfinite(leaf)) for leaf in leaves.values())


def test_a_full_disk(run, whole, tmp_path):
    """The run ends with a message. With space again it continues from the newest checkpoint."""
    folder = shutil.copytree(whole[0], tmp_path / "run")
    shutil.rmtree(folder / "checkpoints" / "12")
    output = finish(run(folder, file_size=16384), code=1)
    assert "error: a checkpoint could not be written to" in output
    output = finish(run(folder))
    assert "going on from step 9 " in output
    assert_same_bits(arrays(folder, 12), whole[1])


def test_the_best_is_kept_and_can_be_named(run, tmp_path):
    """The best checkpoint stays beside the newest, and `@best` loads it."""
    import tdt_jax as tdt

    output = finish(
        run(tmp_path / "run", "training.eval_every=2", "training.keep=1", "training.save_every=4")
    )
    rates = {
        int(step): float(rate) for step, rate in re.findall(r"step (\d+)  dev WER ([\d.]+)", output)
    }
    assert sorted(rates) == [2, 4, 6, 8, 10, 12]
    # When the last one was written, the best of those before stayed.
    before = min(rates.keys() - {12}, key=lambda step: (rates[step], -step))
    kept = {int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir() if p.is_dir()}
    assert kept == {before, 12}
    best = min((before, 12), key=lambda step: (rates[step], -step))
    loaded = tdt.load(f"{tmp_path / 'run'}@best")
    expected = arrays(tmp_path / "run", best)["average"]
    name = "encoder.blocks.attention.query.kernel"
    np.testing.assert_array_equal(
        loaded.model.encoder.blocks.attention.query.kernel[...], expected[name]
    )
    with pytest.raises(ValueError, match="no checkpoint '7'; there are best"):
        tdt.load(f"{tmp_path / 'run'}@7")
