"""Fine-tuning with adapters: your words on one small chip. See docs/finetuning.md.

    python train.py --config configs/finetune.py --set training.init_from=model.nemo \\
        --set data.train=train.jsonl --set data.dev=dev.jsonl
    python train.py --config configs/finetune.py:tdt_0_6b_v3 \\
        --set data.train=train.jsonl --set data.dev=dev.jsonl

The first command tunes any checkpoint that `tdt_jax.load` reads; the second names one of NVIDIA's,
as configs/parakeet.py does, which is downloaded. Trained are low-rank adapters, 2 % of the
parameters; the base is kept in bfloat16. Other ways, by adding to the command:

    --set tuning.rank=0 --set tuning.train=predictor.*,joint.*,ctc.*    the encoder frozen
    --set tuning.rank=0 --set tuning.base_dtype=float32 \\
        --set optimizer.learning_rate=1e-4 --set tuning.frozen_steps=500    everything
    --set tuning.vocabulary=extended --set tokenizer.model=mine.model    more tokens
    --set data.replay=general.jsonl --set data.replay_share=0.3    against forgetting

Hardware: docs/finetuning.md has a table of what fits. What is reached depends on the data.
"""

import dataclasses

from tdt_jax import presets
from tdt_jax.config import Bucket, Config, LossConfig, ModelConfig, TuningConfig


def get_config(name: str = "") -> Config:
    if name and name not in presets.CHECKPOINTS:
        raise ValueError(
            f"there is no checkpoint {name!r}; choose one of {', '.join(presets.CHECKPOINTS)}, or "
            "none and --set training.init_from=PATH"
        )
    # Without a name all but the training's settings comes from the checkpoint.
    shape, source = presets.CHECKPOINTS.get(name, (ModelConfig(ctc=True), ""))
    config = presets.fine_tuning(shape, source)
    weight = config.loss.ctc_weight
    return dataclasses.replace(
        config,
        loss=LossConfig(sigma=0.02, omega=0.1, ctc_weight=weight),
        optimizer=dataclasses.replace(config.optimizer, learning_rate=5e-4, warmup_steps=100),
        data=dataclasses.replace(
            config.data, buckets=(Bucket(7.5, 60, 32), Bucket(15.0, 120, 16), Bucket(30.0, 240, 8))
        ),
        tuning=TuningConfig(rank=16, base_dtype="bfloat16", same_model=True),
        training=dataclasses.replace(
            config.training,
            num_steps=2000,
            eval_every=250,
            save_every=250,
            folder=f"runs/finetune_{name}".rstrip("_"),
        ),
    )
