"""Fine-tuning of NVIDIA's Parakeet checkpoints on your manifests, one configuration for each.

    python train.py --config configs/parakeet.py:tdt_0_6b_v3 \\
        --set data.train=train.jsonl --set data.dev=dev.jsonl

The checkpoint is downloaded from the Hugging Face Hub (pip install '.[hub]'), or read from disk
with `--set training.init_from=PATH`. Its tokenizer is kept.

Hardware: a GPU or TPU. Parameters, gradients and the optimizer take 16 bytes a parameter (10 GB for
0.6 B, 17 GB for 1.1 B), which `--set training.fsdp=4` splits among 4 devices; activations come on
top, and `--set training.accumulate=4` computes them for a quarter of the batch at a time. A batch
has up to 164 s of audio, the 5000 steps have up to 228 hours. How long they take and what WER they
reach depends on hardware and data: no run of these configurations has been measured.

As published, word error rates in % and speeds (RTFx: seconds of audio per second) from the Open ASR
Leaderboard (mean of its English test sets; A100, batch size 128, spring 2026), and LibriSpeech's
test sets:

    name           languages   mel bins   tokens   mean WER   RTFx   test-clean   test-other
    tdt_0_6b_v2    English          128     1024       6.05   3386         1.69         3.19
    tdt_0_6b_v3    25               128     8192       6.32   3333         1.92         3.59
    tdt_1_1b       English           80     1024       7.02   2391         1.40         2.60
    tdt_ctc_110m   English           80     1024       7.49   5345         2.40         5.22
    rnnt_0_6b      English           80     1024       7.50   2816
    rnnt_1_1b      English           80     1024       7.12   2053
    ctc_0_6b       English           80     1024       7.69   4282
    ctc_1_1b       English           80     1024       7.40   2729

The TDT models have the durations 0 to 4; tdt_ctc_110m is a hybrid of TDT and CTC.
"""

from tdt_jax import presets
from tdt_jax.config import Config


def get_config(name: str = "") -> Config:
    if name not in presets.CHECKPOINTS:
        problem = f"there is no checkpoint {name!r}" if name else "no checkpoint is named"
        raise ValueError(
            f"{problem}; choose one of {', '.join(presets.CHECKPOINTS)}, as in "
            "--config configs/parakeet.py:tdt_0_6b_v3"
        )
    return presets.fine_tuning(*presets.CHECKPOINTS[name])
