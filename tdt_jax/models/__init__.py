"""The network: samples -> features -> frames, labels -> states, both -> logits.

features.py      log_mel, log_mel_chunk
encoder.py       Encoder: subsampling and a stack of blocks; over chunks, with a state
subsampling.py   Subsampling: 8 feature frames to one encoder frame
block.py         Block: feed-forwards around attention and convolution
attention.py     relative-position attention, over all frames, in blocks, or of a chunk; masks
attention_kernel.py  the same on TPUs, without scores in memory
attention_kernel_gpu.py  the same on GPUs, with scores in memory once
depthwise.py     depthwise convolutions, as each kind of device computes them fastest
predictor.py     Predictor: LSTM layers over the labels
joint.py         Joint: the token head and the duration head
prompt.py        Prompt: a language prompt on the encoder's frames
transducer.py    Transducer, encode, encode_chunk, abstract_model, with_parameters
adapters.py      what fine-tuning trains of a model; low-rank adapters, merged outside of it
layers.py        masks, dropout, norms: what several networks use
"""

from tdt_jax.models.encoder import EncoderState
from tdt_jax.models.features import FeatureState, log_mel, log_mel_chunk, start_log_mel
from tdt_jax.models.transducer import (
    MismatchError,
    Transducer,
    encode,
    encode_chunk,
    start_encoding,
    with_separate_blocks,
)

__all__ = [
    "EncoderState",
    "FeatureState",
    "MismatchError",
    "Transducer",
    "encode",
    "encode_chunk",
    "log_mel",
    "log_mel_chunk",
    "start_encoding",
    "start_log_mel",
    "with_separate_blocks",
]
