"""Checks that transformers and NeMo compute what tdt_jax computes with a model that it has tuned.

    python tests/golden/check_tuned.py make 110m.nemo                # where NeMo is installed
    python tests/golden/check_tuned.py tune 110m.nemo folder         # here: adapters, a few steps
    python tests/golden/check_tuned.py compare folder/tuned.nemo folder/arrays.npz  # with NeMo
    python tests/golden/check_tuned.py tune tests/golden/parakeet_tdt folder
    python tests/golden/check_tuned.py compare folder/tuned folder/arrays.npz  # with transformers

`make` writes a hybrid of the shape of parakeet-tdt_ctc-110m with random weights. `tune` trains
adapters with train.py on noise, merges them, writes the result in the format of the source, and the
arrays that it computes. `compare` loads that with the other library and compares the logits.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
NUM_STEPS, SECONDS = 3, 1.0
LARGE = {"encoder.d_model": 512, "encoder.n_layers": 17, "encoder.n_heads": 8,
         "encoder.subsampling_conv_channels": 256, "encoder.ff_expansion_factor": 4,
         "encoder.conv_kernel_size": 9, "encoder.feat_in": 80, "preprocessor.features": 80,
         "model_defaults.enc_hidden": 512, "model_defaults.pred_hidden": 640,
         "model_defaults.joint_hidden": 640, "joint.jointnet.joint_hidden": 640,
         "decoder.prednet.pred_rnn_layers": 1}  # fmt: skip


def make(target: Path) -> None:
    """Writes a hybrid of 110 M parameters as NeMo writes it."""
    import tempfile

    import make_nemo
    import torch
    from nemo.collections.asr.models import EncDecHybridRNNTCTCBPEModel
    from omegaconf import OmegaConf

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer = make_nemo.train_tokenizer()
        (folder / "tokenizer.model").write_bytes(tokenizer)
        processor = make_nemo.sentencepiece.SentencePieceProcessor(model_proto=tokenizer)
        pieces = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
        (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces))
        config = make_nemo.config(folder)
        for key, value in LARGE.items():
            OmegaConf.update(config, key, value)
        model = EncDecHybridRNNTCTCBPEModel(cfg=config).eval()
        model.cfg.tokenizer.dir = None
        model.save_to(str(target))
    print(f"{target}: {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters")


def tune(source: Path, folder: Path) -> None:
    """Tunes with adapters, writes the merged model and what it computes."""
    import jax
    import soundfile

    import tdt_jax as tdt

    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    with (folder / "train.jsonl").open("w") as manifest:
        for i in range(2):
            samples = 0.1 * rng.normal(size=round(16000 * SECONDS))
            soundfile.write(folder / f"{i}.wav", samples, 16000)
            entry = dict(audio_filepath=f"{i}.wav", duration=SECONDS, text="hello world")
            manifest.write(json.dumps(entry) + "\n")
    bucket = dict(seconds=SECONDS, tokens=20, batch_size=2)
    command = [sys.executable, str(HERE.parents[1] / "train.py")]
    command += ["--config", str(HERE.parents[1] / "configs" / "finetune.py")]
    for assignment in (
        f"training.init_from={source}", f"data.train={folder / 'train.jsonl'}",
        f"data.buckets={json.dumps([bucket])}", f"training.num_steps={NUM_STEPS}",
        f"training.folder={folder / 'run'}", "training.log_every=1", "optimizer.warmup_steps=1",
        "optimizer.learning_rate=0.01", "model.dtype=float32",
    ):  # fmt: skip
        command += ["--set", assignment]
    subprocess.run(command, check=True)

    base, tuned = tdt.load(source), tdt.load(folder / "run")
    kind = "nemo" if source.suffix == ".nemo" else "hf"
    tdt.save(tuned, folder / ("tuned.nemo" if kind == "nemo" else "tuned"), format=kind)
    mels = tuned.config.features.num_mels
    features = rng.normal(size=(2, 64, mels)).astype(np.float32)
    lengths = np.array([64, 45], np.int32)
    features[1, 45:] = 0
    labels = rng.integers(1, 20, (2, 3))

    @jax.jit
    def compute(model):
        frames, _ = tdt.encode(model, features, lengths)
        tokens, durations = model.joint(frames, model.predictor(labels))
        heads = {"ctc": model.ctc(frames)} if model.ctc is not None else {}
        return {"logits": jax.numpy.concatenate([tokens, durations], -1), **heads}

    with jax.default_matmul_precision("highest"):
        before, after = (jax.device_get(compute(each.model)) for each in (base, tuned))
    change = np.abs(after["logits"] - before["logits"]).max() / np.abs(after["logits"]).max()
    print(f"tuning has changed the logits by {change:.1e} of the largest")
    np.savez(folder / "arrays.npz", features=features, lengths=lengths, labels=labels, **after)


def compare(target: Path, arrays: Path) -> None:
    """Loads a tuned model with NeMo (a file) or transformers (a folder) and compares."""
    import torch

    given = np.load(arrays)
    features, lengths = torch.tensor(given["features"]), torch.tensor(given["lengths"]).long()
    labels = torch.tensor(given["labels"]).long()
    num_frames = -(-given["lengths"] // 8)
    with torch.no_grad():
        if target.is_dir():
            found = _transformers_logits(target, features, lengths, labels)
        else:
            found = _nemo_logits(target, features, lengths, labels)
    for name, each in found.items():
        expected, worst = given[name], 0.0
        for row, count in enumerate(num_frames):
            difference = np.abs(each.numpy()[row, :count] - expected[row, :count])
            worst = max(worst, float(difference.max() / np.abs(expected).max()))
        print(f"{name}: differs by {worst:.1e} of the largest")
        if not worst < 2e-5:
            sys.exit(f"{name} differs")


def _nemo_logits(target, features, lengths, labels):
    import torch
    from nemo.collections.asr.models import ASRModel

    model = ASRModel.restore_from(str(target), map_location="cpu").eval()
    encoded, _ = model.encoder(audio_signal=features.transpose(1, 2), length=lengths)
    states, *_ = model.decoder(targets=labels, target_length=torch.full((len(labels),), 3))
    joint = model.joint  # which itself takes a log-softmax on CPU
    hidden = joint.project_encoder(encoded.transpose(1, 2))[:, :, None]
    logits = joint.joint_net(hidden + joint.project_prednet(states.transpose(1, 2))[:, None])
    ctc = model.ctc_decoder.decoder_layers(encoded).transpose(1, 2)
    return {"logits": logits, "ctc": ctc}


def _transformers_logits(target, features, lengths, labels):
    import torch
    from transformers import ParakeetForTDT

    model = ParakeetForTDT.from_pretrained(target).eval()
    mask = torch.arange(features.shape[1])[None] < lengths[:, None]
    frames = model.get_audio_features(features, mask).pooler_output
    start = labels.new_full((len(labels), 1), model.config.blank_token_id)
    states = model.decoder(torch.cat([start, labels], 1))
    return {"logits": model.joint(states[:, None], frames[:, :, None])}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("act", choices=["make", "tune", "compare"])
    parser.add_argument("paths", nargs="+", type=Path)
    options = parser.parse_args()
    {"make": make, "tune": tune, "compare": compare}[options.act](*options.paths)
