"""LibriSpeech, 960 h, English: a TDT of 115 M parameters that streams with a cache.

    tdt-jax prepare librispeech FOLDER data   # FOLDER: archives of OpenSLR, or LibriSpeech/
    python train.py --config configs/librispeech_streaming_tdt.py

The encoder is causal but for its chunks: a frame looks ahead by 0, 80, 480 or 1040 ms at most, as
chosen at run time, and back by 5.6 s. These contexts, and features that are not normalized, are
those of NVIDIA's cache-aware RNN-T checkpoints. Each training batch has one of the contexts;
FastEmit works against the delay of labels that a causal model learns.

Data, hardware and hours are those of configs/librispeech_tdt.py. `--set model.durations=none`
trains the RNN-T to compare with.

No run of this configuration has been measured, and no WER of a TDT that streams with a cache on
LibriSpeech has been published. Models of this kind with RNN-T decoders report 2.3 % on test-clean
with much more training data (nvidia/nemotron-speech-streaming-en-0.6b, 1.12 s).
"""

import dataclasses
from pathlib import Path

from tdt_jax import config as configs


def get_config() -> configs.Config:
    config = configs.load(Path(__file__).parent / "librispeech_tdt.py")
    encoder = dataclasses.replace(
        config.model.encoder,
        chunked_contexts=((70, 1), (70, 0), (70, 6), (70, 13)),
        convolution_context=(config.model.encoder.kernel_size - 1, 0),
        causal_subsampling=True,
    )
    features = dataclasses.replace(config.model.features, normalize=(0.0, 1.0))
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, encoder=encoder, features=features),
        loss=dataclasses.replace(config.loss, fastemit=0.005),
        training=dataclasses.replace(config.training, folder="runs/librispeech_streaming_tdt"),
    )
