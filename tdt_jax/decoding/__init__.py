"""Decoding: frames [B, T, D] of the encoder -> Hypothesis. Knows arrays only, and no flax.

hypothesis.py    Hypothesis, DecoderState: the result of a decoder, its state between chunks
greedy.py        start_decoding, greedy_decode, decode_chunk: TDT and RNN-T
ctc.py           ctc_decode
"""

from tdt_jax.decoding.ctc import ctc_decode
from tdt_jax.decoding.greedy import decode_chunk, greedy_decode, start_decoding
from tdt_jax.decoding.hypothesis import DecoderState, Hypothesis

__all__ = [
    "DecoderState",
    "Hypothesis",
    "ctc_decode",
    "decode_chunk",
    "greedy_decode",
    "start_decoding",
]
