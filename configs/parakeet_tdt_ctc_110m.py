"""Fine-tune Parakeet TDT-CTC 110m: a hybrid, English, 80 mel bins, 1024 tokens, durations 0 to 4.

    python train.py --config configs/parakeet_tdt_ctc_110m.py \\
        --set data.train=train.jsonl --set data.dev=dev.jsonl

Fetches the checkpoint from the Hugging Face Hub (pip install '.[hub]'); a copy on disk is named by
`--set training.init_from=PATH`. As published: mean WER 7.49 %, RTFx 5345 on the Open ASR
Leaderboard (A100, batch 128, spring 2026); LibriSpeech test-clean 2.40 %, test-other 5.22 %. What
fine-tuning reaches depends on the data; no run of this configuration has been measured.
"""

from tdt_jax import presets
from tdt_jax.config import Config


def get_config() -> Config:
    return presets.fine_tuning(presets.PARAKEET_TDT_CTC_110M, "nvidia/parakeet-tdt_ctc-110m")
