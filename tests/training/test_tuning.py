"""What a run that fine-tunes prepares, and what it refuses."""

import json

import numpy as np
import pytest
import soundfile

from tdt_jax import config as configs
from tdt_jax.data.batches import ManifestBatches
from tdt_jax.data.selection import Selection
from tdt_jax.tokenizer import Characters
from tdt_jax.training import tuning


def test_a_source_is_needed_to_tune():
    for assignment in ("tuning.rank=4", "tuning.vocabulary=replaced", "tuning.freeze=encoder.*"):
        tuned = configs.override(configs.Config(), assignment)
        with pytest.raises(ValueError, match=r"names none: add --set training.init_from=PATH"):
            tuning.check_source(tuned)
        tuning.check_source(configs.override(tuned, "training.init_from=a.nemo"))
    tuning.check_source(configs.override(configs.Config(), "tuning.layer_decay=0.9"))


def test_the_base_gives_the_architecture_and_the_run_the_rest():
    given = configs.override(
        configs.Config(), "tuning.same_model=true", "model.dtype=bfloat16", "model.ctc=true",
        "loss.ctc_weight=0.3", "model.encoder.dropout=0.2", "model.encoder.remat=true",
    )  # fmt: skip
    base = configs.override(
        configs.Config().model, "encoder.width=64", "joint.width=32", "joint.dropout=0",
        "durations=none", "encoder.dropout=0", "piece_seconds=20", "vocab_size=9",
    )  # fmt: skip
    tuned = tuning.with_model_of(given, base)
    assert tuned.model == configs.override(
        base, "encoder.dropout=0.2", "encoder.remat=true", "joint.dropout=0.2", "dtype=bfloat16",
        "piece_seconds=none",
    )  # fmt: skip
    assert tuned.loss.ctc_weight == 0.0
    hybrid = configs.override(base, "ctc=true")
    assert tuning.with_model_of(given, hybrid).loss.ctc_weight == 0.3
    assert tuning.with_model_of(configs.Config(), base) == configs.Config()


def test_too_many_utterances_without_an_alignment_are_refused():
    def selection(num_kept, num_unaligned):
        reasons = {"with more labels than frames allow": [f"bad{i}" for i in range(num_unaligned)]}
        return Selection([None] * num_kept, [], None, {"without text": ["x"], **reasons})

    tuning.check_alignments(None)
    tuning.check_alignments(selection(198, 1))
    with pytest.raises(ValueError, match=r"^3 of 202 utterances, such as bad0, have more labels"):
        tuning.check_alignments(selection(198, 3))


def test_tokens_are_described():
    known = Characters("abc")
    assert tuning.describe_tokens(known, known, "base") == "tokens: the 3 of base"
    other = Characters("bcde")
    assert (
        tuning.describe_tokens(known, other, "base") == "tokens: 4, 2 of them among the 3 of base"
    )


def task_of(config, folder, tokenizer=None, *, is_new=True, **files):
    """The task of a run on manifests that files name, of one recording and its texts."""
    soundfile.write(folder / "a.wav", np.sin(np.arange(16000) / 9), 16000)
    for name, texts in files.items():
        lines = [{"audio_filepath": "a.wav", "duration": 1.0, "text": text} for text in texts]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tuning.make_tuning_task(config, tokenizer, is_new=is_new)


def run_config(folder, *changes):
    bucket = '[{"seconds": 1, "tokens": 64, "batch_size": 2}]'
    return configs.override(
        configs.Config(), f"data.folder={folder}", "data.train=new.jsonl", f"data.buckets={bucket}",
        "tokenizer.kind=characters", "training.init_from=base", *changes,
    )  # fmt: skip


@pytest.mark.parametrize("has_model", [False, True])
@pytest.mark.parametrize(
    ("vocabulary", "is_new", "alphabet"),
    [
        ("kept", True, " abx"),
        ("replaced", True, " ac"),
        ("extended", True, " abxc"),
        ("replaced", False, " abx"),
        ("extended", False, " abx"),
    ],
)
def test_the_tokens_of_a_run(tmp_path, vocabulary, is_new, alphabet, has_model):
    """Those of the text or of a file; a run that goes on has chosen them already."""
    Characters(" ac").save(tmp_path)
    config = run_config(tmp_path, f"tuning.vocabulary={vocabulary}")
    if has_model:
        config = configs.override(config, f"tokenizer.model={tmp_path / 'characters.json'}")
    known = Characters(" abx")
    texts = ["ac"] if "c" in alphabet and not has_model else ["aa"]
    task = task_of(config, tmp_path, known, is_new=is_new, new=texts)
    assert task.tokenizer == Characters(alphabet)


def test_replay_has_its_share_of_the_steps(tmp_path):
    config = run_config(tmp_path, "data.replay=old.jsonl", "data.replay_share=0.25")
    task = task_of(config, tmp_path, Characters("ab"), new=["a"] * 3, old=["bb"] * 2)
    labels = [task.batches[step].labels[0].tolist()[:2] for step in range(8)]
    assert labels == [[0, 0]] * 3 + [[1, 1]] + [[0, 0]] * 3 + [[1, 1]]
    assert task.report == [
        "training: 3 utterances, 0.00 h", "replay in 25 % of the steps: 2 utterances, 0.00 h",
    ]  # fmt: skip
    alone = run_config(tmp_path)
    assert isinstance(task_of(alone, tmp_path, Characters("ab")).batches, ManifestBatches)


def test_a_run_on_texts_of_other_recordings_is_refused(tmp_path):
    config = run_config(tmp_path, "model.durations=1,2")
    files = dict(new=["ab" * 20, "a"])
    with pytest.raises(ValueError, match=r"1 of 2 utterances, such as a.wav, have more labels"):
        task_of(config, tmp_path, Characters("ab"), **files)
    task_of(configs.override(config, "training.init_from="), tmp_path, Characters("ab"))
