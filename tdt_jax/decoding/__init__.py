"""Decoding: frames [B, T, D] of the encoder -> Hypothesis. Knows arrays only, no flax.

greedy.py        greedy_decode, start_decoding, decode_chunk: TDT and RNN-T
ctc.py           ctc_decode: greedy decoding of a CTC head
hypothesis.py    Hypothesis, a decoder's result; DecoderState, its state between chunks
automaton.py     Automaton: weights of labels after the labels before them, as arrays
advice.py        Advice: automata that a decoder asks; what they add to logits
"""

from tdt_jax.decoding.advice import Advice
from tdt_jax.decoding.ctc import ctc_decode
from tdt_jax.decoding.greedy import decode_chunk, greedy_decode, start_decoding
from tdt_jax.decoding.hypothesis import DecoderState, Hypothesis

__all__ = [
    "Advice",
    "DecoderState",
    "Hypothesis",
    "ctc_decode",
    "decode_chunk",
    "greedy_decode",
    "start_decoding",
]
