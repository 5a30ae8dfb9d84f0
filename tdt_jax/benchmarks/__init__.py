"""Measurements, each a report to print.

report.py          Report: figures, and a table of them
timing.py          seconds and memory of a function, rates of this machine
cases.py           sizes of models and batches, random weights and inputs
random_decoder.py  a decoder of random weights that emits as many labels as a trained one
peers.py           transformers: models with the same weights, and the same measurements
loss.py            the losses
encoder.py         the encoder
decoder.py         the decoder
chunk.py           a streaming step: the next chunk of live streams
train_step.py      a training step
data.py            batches, without a model
aot.py             what the following share: they compile for a TPU or a GPU that is not there
loss_aot.py        the losses, as compilers estimate them
encoder_aot.py     the encoder, likewise
decoder_aot.py     the decoder, likewise
chunk_aot.py       a streaming step, likewise
train_step_aot.py  a training step, likewise
device.py          the first ten minutes on an accelerator, stage by stage, to be continued
device_stages.py   its stages: parity with the CPU, and the speed of every part
silence.py         a TDT beside an RNN-T, with more and more silence
long_form.py       recordings joined, after silence, and live: which words change
boost.py           boosted phrases: how often they are right, and what they cost other words
live.py            streams as a voice agent uses them: error rates and delays
turns.py           how soon and how surely a stream detects the ends of turns
serve.py           a server under load: live streams, and recordings beside transcribe
serve_load.py      a process that loads a server
windows.py         streams in windows: which words and times differ from the whole recording's
recordings.py      recordings read into memory
near_silence.py    kinds of near silence and narrow channels, for long_form.py
parity.py          every stage of a model beside transformers'
"""
