"""Values and gradients of other implementations' transducer losses: writes loss.npz beside it.

    pip install torch==2.13.0 transformers==5.23.0 warprnnt_numba==0.4.1  # in an environment apart
    python tests/golden/make_loss.py

The TDT loss is transformers' (`transformers.loss.loss_tdt.tdt_loss`, a port of NeMo's), the RNN-T
loss warprnnt_numba's. Inputs are random and ragged; every array is stored, so that the tests need
numpy only.
"""

from pathlib import Path

import numpy as np
import torch
from transformers.loss.loss_tdt import tdt_loss
from warprnnt_numba import RNNTLossNumba

# name: durations (None: RNN-T), sigma, fastemit, scale of the logits
CASES = {
    "tdt_plain": ((0, 1, 2, 3, 4), 0.0, 0.0, 1.0),
    "tdt_sigma": ((0, 1, 2), 0.05, 0.0, 1.0),
    "tdt_peaky": ((0, 1, 2, 4, 8), 0.02, 0.0, 8.0),
    "rnnt_plain": (None, 0.0, 0.0, 1.0),
    "rnnt_peaky": (None, 0.0, 0.0, 8.0),
    "rnnt_fastemit": (None, 0.0, 0.3, 1.0),
}
NUM_FRAMES, NUM_LABELS, VOCAB = (14, 9, 3), (5, 5, 1), 9


def main() -> None:
    arrays = {"num_frames": np.array(NUM_FRAMES), "num_labels": np.array(NUM_LABELS)}
    for seed, (name, (durations, sigma, fastemit, scale)) in enumerate(CASES.items()):
        rng = np.random.default_rng(seed)
        batch, frames, labels = len(NUM_FRAMES), max(NUM_FRAMES), max(NUM_LABELS)
        shape = (batch, frames, labels + 1)
        case = {
            "tokens": (scale * rng.normal(size=(*shape, VOCAB + 1))).astype(np.float32),
            "lengths": rng.normal(size=(*shape, len(durations or (0,)))).astype(np.float32),
            "labels": rng.integers(0, VOCAB, (batch, labels)).astype(np.int32),
            "durations": np.array(durations or (), np.int32),
            "sigma": np.array(sigma),
            "fastemit": np.array(fastemit),
        }
        tokens, lengths = (torch.tensor(case[k], requires_grad=True) for k in ("tokens", "lengths"))
        targets = torch.tensor(case["labels"])
        counts = [torch.tensor(x, dtype=torch.int32) for x in (NUM_FRAMES, NUM_LABELS)]
        if durations is None:
            options = dict(blank=VOCAB, reduction="none", fastemit_lambda=fastemit)
            loss = RNNTLossNumba(**options)(tokens, targets, *counts)
        else:
            loss = tdt_loss(
                tokens,
                lengths,
                targets.long(),
                *(count.long() for count in counts),
                blank_token_id=VOCAB,
                durations=list(durations),
                sigma=sigma,
                reduction="none",
            )
        loss.sum().backward()
        case["loss"], case["token_gradient"] = loss.detach().numpy(), tokens.grad.numpy()
        if durations is not None:
            case["length_gradient"] = lengths.grad.numpy()
        arrays |= {f"{name}/{key}": value for key, value in case.items()}
    np.savez_compressed(Path(__file__).with_name("loss.npz"), **arrays)


if __name__ == "__main__":
    main()
