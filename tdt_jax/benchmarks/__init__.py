"""Measurements, each a report to print.

timing.py          a process of its own, seconds, memory, the rate of matrix products
cases.py           sizes, random inputs, shapes of batches
random_decoder.py  a decoder of random weights that emits as many labels as speech has
loss.py            the losses
encoder.py         the encoder
decoder.py         the decoder
train_step.py      a training step
data.py            how fast batches are made, without a model
loss_aot.py        the losses, from the TPU's compiler, with no TPU
train_step_aot.py  a training step, from the TPU's compiler, with no TPU
silence.py         a TDT's and an RNN-T's decoder steps with more and more silence
long_form.py       word error rate of joined recordings, behind silence, live
near_silence.py    kinds of near silence, for long_form.py
parity.py          every stage beside transformers'
"""
