"""Tasks of configurations: what they train on has the sample rate of the model."""

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from tdt_jax.config import (
    Bucket,
    Config,
    DataConfig,
    FeatureConfig,
    ModelConfig,
    TelephoneConfig,
    TokenizerConfig,
)
from tdt_jax.data.task import make_task
from tdt_jax.data.telephone.compose import Telephone, prompts_folder

EIGHT_KHZ = FeatureConfig(sample_rate=8000, fft_length=256, window_length=200, hop_length=80)
CONFIG = Config(
    model=ModelConfig(features=EIGHT_KHZ),
    tokenizer=TokenizerConfig(kind="characters"),
    data=DataConfig(buckets=(Bucket(1.0, 20, 2),)),
)


@pytest.mark.slow
def test_telephone_speech_has_the_rate_of_the_model():
    telephone = TelephoneConfig(kinds=("digits",), speed=(1.0,), num_test=2)
    task = make_task(replace(CONFIG, data=replace(CONFIG.data, telephone=telephone)))
    lines = (prompts_folder() / "manifest.jsonl").read_text().splitlines()
    seconds = {line["audio_filepath"]: line["duration"] for line in map(json.loads, lines)}
    for phrase in task.test["phrases"]:
        assert len(phrase.samples) / 8000 == pytest.approx(seconds[f"{phrase.id}.opus"], abs=0.02)
    expected = Telephone(telephone, sample_rate=8000).test_set()
    assert [len(each.samples) for each in task.test["composed"]] == [
        len(each.samples) for each in expected
    ]
    assert task.batches[0].samples.shape == (2, 8960)
    dev = Telephone(replace(telephone, num_test=50), sample_rate=8000, seed=1).test_set()
    assert [(each.text, len(each.samples)) for each in task.dev] == [
        (each.text, len(each.samples)) for each in dev
    ]


def test_manifests_are_selected_at_the_rate_of_the_model(tmp_path):
    """A batch of a bucket of 1 s has rows of 1.12 s at 8 kHz, of 1.04 s at 16 kHz."""
    samples = np.full(8800, 0.1)
    soundfile.write(tmp_path / "a.wav", samples, 8000, subtype="FLOAT")
    line = {"audio_filepath": "a.wav", "duration": 1.1, "text": "one"}
    (tmp_path / "train.jsonl").write_text(json.dumps(line))
    data = replace(CONFIG.data, train=(str(tmp_path / "train.jsonl"),))
    task = make_task(replace(CONFIG, data=data))
    assert task.report == ["training: 1 utterances, 0.00 h"]
    batch = task.batches[0]
    assert batch.num_samples.tolist() == [8800, 8800] and not task.batches.failed
    np.testing.assert_allclose(batch.samples[0, :8800], 0.1, rtol=1e-6)


def test_lengths_that_a_manifest_lacks_are_read(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(8000, 0.1), 8000)
    (tmp_path / "train.jsonl").write_text(json.dumps({"audio_filepath": "a.wav", "text": "one"}))
    data = replace(CONFIG.data, train=(str(tmp_path / "train.jsonl"),))
    task = make_task(replace(CONFIG, data=data))
    assert [entry.seconds for entry in task.batches.selection.entries] == [1.0]


def test_nothing_to_train_on():
    with pytest.raises(ValueError, match=r"data.train names no manifest .* data.telephone is none"):
        make_task(CONFIG)
