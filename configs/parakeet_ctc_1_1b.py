"""Fine-tune Parakeet CTC 1.1b: English, 80 mel bins, 1024 tokens.

    python train.py --config configs/parakeet_ctc_1_1b.py \\
        --set data.train=train.jsonl --set data.dev=dev.jsonl

Fetches the checkpoint from the Hugging Face Hub (pip install '.[hub]'); a copy on disk is named by
`--set training.init_from=PATH`. As published: mean WER 7.40 %, RTFx 2729 on the Open ASR
Leaderboard (A100, batch 128, spring 2026). What fine-tuning reaches depends on the data; no run of
this configuration has been measured.
"""

from tdt_jax import presets
from tdt_jax.config import Config


def get_config() -> Config:
    return presets.fine_tuning(presets.PARAKEET_CTC_1_1B, "nvidia/parakeet-ctc-1.1b")
