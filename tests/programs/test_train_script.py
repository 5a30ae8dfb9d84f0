"""train.py as a program: exact resume after SIGKILL, NaN, refusals, and its RNN-T twin."""

import json
import re
import signal

import numpy as np
import pytest
from paths import GOLDEN
from program import Program, arrays, assert_same_bits, finish

from tdt_jax.runtime.pytree import named_leaves
from tdt_jax.tokenizer import Characters


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Program(tmp_path_factory.mktemp("cache"))


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bits(run, tmp_path):
    output = finish(run(tmp_path / "whole"))
    assert "step 12" in output and "composed: WER" in output
    expected = arrays(tmp_path / "whole", 12)

    step = int(np.random.default_rng(5).integers(4, 12))
    killed = run(tmp_path / "killed")
    for line in killed.stdout:
        if re.match(rf"step {step} ", line):
            killed.send_signal(signal.SIGKILL)
            break
    killed.wait()
    assert killed.returncode == -signal.SIGKILL
    output = finish(run(tmp_path / "killed"))
    assert re.search(r"going on from step (3|6|9) ", output)
    assert_same_bits(arrays(tmp_path / "killed", 12), expected)


@pytest.mark.slow
def test_an_rnnt_trains_and_a_finished_run_only_tests(run, tmp_path):
    overrides = "model.durations=none", "training.num_steps=2"
    output = finish(run(tmp_path / "rnnt", *overrides))
    assert output.startswith("RNN-T, ")
    assert "composed: WER" in output and "phrases: WER" in output
    output = finish(run(tmp_path / "rnnt", *overrides))
    assert "going on from step 2" in output and "composed: WER" in output
    output = finish(run(tmp_path / "rnnt", "training.num_steps=2"), code=1)
    assert "error:" in output and "another model" in output and "Traceback" not in output


@pytest.mark.slow
def test_a_second_run_in_a_folder_and_another_tokenizer_are_refused(run, tmp_path):
    """Refused in one line; the first run, and what it trained, stay as they are."""
    first = run(tmp_path / "run", "training.num_steps=100000")
    while not re.match("step 2 ", line := first.stdout.readline()):
        assert line
    output = finish(run(tmp_path / "run"), code=1)
    assert output.startswith(f"error: {tmp_path / 'run'} is in use by process {first.pid} on ")
    for number, process in enumerate(run.together(2, tmp_path / "run", devices=1)):
        output = finish(process, code=1)
        assert f"error in process {number}: {tmp_path / 'run'} is in use by" in output
    first.send_signal(signal.SIGKILL)
    first.communicate()
    output = finish(run(tmp_path / "run", "tokenizer.vocab_size=64"), code=1)
    assert output.endswith("tokenizer.vocab_size is 40 there and 64 here\n")
    assert "going on from step" in finish(run(tmp_path / "run", "training.num_steps=1"))
    new = (f"training.init_from={tmp_path / 'run'}", "training.num_steps=1")
    assert "tokens: the 40 of" in finish(run(tmp_path / "new", *new))
    Characters("abc").save(tmp_path)
    other = f"tokenizer.model={tmp_path / 'characters.json'}"
    output = finish(run(tmp_path / "other", *new, other), code=1)
    assert "has another tokenizer, of 40 tokens, than" in output and "Traceback" not in output


@pytest.mark.slow
def test_utterances_of_one_frame_train(run, tmp_path):
    """In a batch with longer ones; shorter utterances are counted and left out."""
    import soundfile

    rng = np.random.default_rng(0)
    lines = []
    for i, size in enumerate((160, 320, 1280, 1290, 6400, 6400)):
        soundfile.write(tmp_path / f"{i}.wav", rng.normal(size=size) * 0.1, 16000)
        entry = {"audio_filepath": f"{i}.wav", "duration": size / 16000, "text": "on"}
        lines.append(json.dumps(entry) + "\n")
    (tmp_path / "train.jsonl").write_text("".join(lines))
    overrides = (f"data.train={tmp_path / 'train.jsonl'}", "data.telephone=none")
    overrides += ("tokenizer.kind=characters", "training.num_steps=6", "augment.speed=0.9,1.1")
    output = finish(run(tmp_path / "run", *overrides))
    assert "5 utterances" in output and "1 with too few frames for any alignment" in output
    assert "step 6" in output


@pytest.mark.slow
def test_a_nan_ends_the_run_with_step_and_utterances(run, tmp_path):
    output = finish(run(tmp_path / "nan", "optimizer.learning_rate=1e38"), code=1)
    assert re.search(r"step \d+: loss nan, gradient norm nan; utterances: composed", output)
    assert "Traceback" not in output
    saved = tmp_path / "nan" / "checkpoints"
    for step in [int(p.name) for p in saved.iterdir() if p.name.isdigit()]:
        for leaves in arrays(tmp_path / "nan", step).values():
            assert all(np.all(np.isfinite(leaf)) for leaf in leaves.values())


@pytest.mark.slow
def test_manifests_with_bad_entries_train(run, tmp_path):
    """Bad files and lines are reported and counted; the rest trains."""
    import soundfile

    rng = np.random.default_rng(0)
    lines = []
    for i in range(8):
        soundfile.write(tmp_path / f"{i}.wav", rng.normal(size=32000) * 0.1, 16000)
        lines.append({"audio_filepath": f"{i}.wav", "duration": 2.0, "text": "one two"})
    (tmp_path / "7.wav").write_bytes(b"not audio")
    lines.append({"audio_filepath": "gone.wav", "duration": 1.0, "text": "one"})
    lines.append({"audio_filepath": "0.wav", "duration": 99.0, "text": "too long"})
    lines.append({"audio_filepath": "1.wav", "duration": 2.0, "text": ""})
    manifest = tmp_path / "train.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    output = finish(
        run(
            tmp_path / "run",
            "data.telephone=none",
            f"data.train={manifest}",
            f"data.dev={manifest}",
            "training.num_steps=2",
            "tokenizer.kind=characters",
        )
    )
    assert (
        "8 utterances" in output
        and "skipped 3" in output
        and "without a file" in output
        and "without text" in output
    )
    assert "1 unreadable files" in output and "7.wav" in output
    assert "not counted" in output


FINE_TUNE = """
import dataclasses
import tdt_jax as tdt
from tdt_jax import presets

def get_config():
    model = tdt.load({source!r}).config
    config = presets.fine_tuning(model, {source!r})
    buckets = (tdt.Bucket(2.56, 20, 4),)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, buckets=buckets))
"""


@pytest.mark.slow
def test_a_parakeet_is_fine_tuned_and_handed_back(run, tmp_path):
    """From a .nemo archive, in bfloat16 with its tokenizer, to a folder and a .nemo again."""
    import soundfile

    import tdt_jax as tdt
    from tdt_jax.checkpoints.parakeet.nemo import write_nemo

    source = str(GOLDEN / "parakeet_hybrid.nemo")
    (tmp_path / "tune.py").write_text(FINE_TUNE.format(source=source))
    rng = np.random.default_rng(0)
    lines = []
    for i in range(4):
        soundfile.write(tmp_path / f"{i}.wav", rng.normal(size=32000) * 0.1, 16000)
        entry = {"audio_filepath": f"{i}.wav", "duration": 2.0, "text": "hello world"}
        lines.append(json.dumps(entry) + "\n")
    (tmp_path / "train.jsonl").write_text("".join(lines))
    overrides = (f"data.train={tmp_path / 'train.jsonl'}", "training.num_steps=2",
                 "training.log_every=1", "optimizer.warmup_steps=1")  # fmt: skip
    output = finish(run(tmp_path / "run", *overrides, config=tmp_path / "tune.py"))
    assert output.startswith("training: 4 utterances") and "64 tokens" in output
    before, after = tdt.load(source), tdt.load(tmp_path / "run")
    assert after.tokenizer.pieces == before.tokenizer.pieces
    moved = [
        float(np.max(np.abs(np.asarray(leaf) - other)))
        for leaf, other in zip(
            named_leaves(after.model).values(), named_leaves(before.model).values(), strict=True
        )
    ]
    assert 0 < np.median(moved) < 1e-3  # from where it was, not from random
    write_nemo(after, tmp_path / "tuned.nemo")
    again = tdt.load(tmp_path / "tuned.nemo")
    for name, leaf in named_leaves(again.model).items():
        np.testing.assert_array_equal(leaf, named_leaves(after.model)[name])

    output = finish(run(tmp_path / "other", *overrides, "model.encoder.width=32",
                        config=tmp_path / "tune.py"), code=1)  # fmt: skip
    assert "do not fit the model" in output and "Traceback" not in output
