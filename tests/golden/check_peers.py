"""Checks that transformers and NeMo load checkpoints that tdt_jax writes, and compute the same.

    tdt-jax convert tests/golden/parakeet_tdt /tmp/tdt --to hf
    python tests/golden/check_peers.py /tmp/tdt              # where transformers is installed
    tdt-jax convert tests/golden/parakeet_hybrid.nemo /tmp/hybrid.nemo --to nemo
    python tests/golden/check_peers.py /tmp/hybrid.nemo      # where NeMo is installed

Takes checkpoints that were converted from the golden ones, in one step or more, and compares with
the arrays that the originals computed.
"""

import sys
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent


def compare(computed: dict, golden: dict) -> None:
    for name, array in computed.items():
        expected = golden[name]
        error = np.max(np.abs(np.asarray(array) - expected)) / max(1e-9, np.max(np.abs(expected)))
        print(f"{name}: {error:.1e}")
        if not error < 2e-5:
            sys.exit(f"{name} differs")


def check_nemo(path: Path) -> None:
    import make_nemo
    from nemo.collections.asr.models import ASRModel

    model = ASRModel.restore_from(str(path), map_location="cpu").eval()
    golden = np.load(HERE / "nemo.npz")
    if not hasattr(model, "joint"):
        sys.exit("a CTC model, of which NeMo has computed no golden arrays; it was restored")
    if not hasattr(model, "ctc_decoder"):
        sys.exit("a transducer without a CTC head: it was restored")
    features, lengths = make_nemo.utterances()
    computed = make_nemo.stages(model, features[:3], lengths[:3])
    compare({name: each.detach().numpy() for name, each in computed.items()}, golden)
    kept, labels, times, _ = make_nemo.decode(model, features, lengths)
    for name, each in (("labels", labels), ("times", times)):
        np.testing.assert_array_equal(np.concatenate(each), golden[f"decoded_{name}"])
    print(f"{len(kept)} utterances decoded alike; {model.tokenizer.text_to_ids('hello world')}")


def check_transformers(path: Path) -> None:
    import make_parakeet
    import transformers

    kind = transformers.AutoConfig.from_pretrained(path).model_type.removeprefix("parakeet_")
    name = {"tdt": "ParakeetForTDT", "rnnt": "ParakeetForRNNT", "ctc": "ParakeetForCTC"}[kind]
    model, report = getattr(transformers, name).from_pretrained(path, output_loading_info=True)
    if report["missing_keys"] or report["unexpected_keys"] or report["mismatched_keys"]:
        sys.exit(f"{path}: {report}")
    golden = np.load(HERE / "parakeet.npz")
    features, lengths = golden["features"], golden["lengths"]
    if kind == "ctc":
        computed = make_parakeet.stages(model.eval(), features, lengths)
    else:
        computed = make_parakeet.stages(model.eval(), features[:2], lengths[:2])
    expected = {key: golden[f"{kind}_{key}"] for key in computed}
    compare({key: each.detach().numpy() for key, each in computed.items()}, expected)
    processor = transformers.AutoProcessor.from_pretrained(path)
    print(type(processor).__name__, type(processor.tokenizer).__name__)
    ids = [processor.tokenizer(text)["input_ids"] for text in make_parakeet.TEXTS]
    if kind != "ctc":
        np.testing.assert_array_equal(np.concatenate(ids), golden[f"{kind}_tokenized"])
    samples = np.random.default_rng(5).normal(size=4000).astype(np.float32) * 0.1
    inputs = processor(samples, sampling_rate=16000)
    with torch.no_grad():
        out = model.generate(inputs["input_features"], attention_mask=inputs["attention_mask"])
    print("transcribed:", processor.batch_decode(out if kind == "ctc" else out.sequences))


if __name__ == "__main__":
    torch.set_num_threads(1)
    target = Path(sys.argv[1])
    check_transformers(target) if target.is_dir() else check_nemo(target)
