"""Fine-tune Parakeet TDT 0.6b v3: 25 languages, 128 mel bins, 8192 tokens, durations 0 to 4.

    python train.py --config configs/parakeet_tdt_0_6b_v3.py \\
        --set data.train=train.jsonl --set data.dev=dev.jsonl

Fetches the checkpoint from the Hugging Face Hub (pip install '.[hub]'); a copy on disk is named by
`--set training.init_from=PATH`. As published: mean WER 6.32 %, RTFx 3333 on the Open ASR
Leaderboard (A100, batch 128, spring 2026); LibriSpeech test-clean 1.92 %, test-other 3.59 %. What
fine-tuning reaches depends on the data; no run of this configuration has been measured.
"""

from tdt_jax import presets
from tdt_jax.config import Config


def get_config() -> Config:
    return presets.fine_tuning(presets.PARAKEET_TDT_0_6B_V3, "nvidia/parakeet-tdt-0.6b-v3")
