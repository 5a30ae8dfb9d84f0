"""Samples on the host, without JAX.

reading    recordings of any kind to mono float32 samples: what the rest of the package calls
request    which part of a recording is wanted; AudioError, AudioWarning
items      what Python programs have recordings as: paths, open files, bytes, arrays with a rate
parts      files that are several: chained Ogg, joined MP3
sndfile    a file's samples by libsndfile
container  a file's samples by FFmpeg (PyAV), at their places on the time line
downmix    channels to one
encoded    files in memory, as prepared datasets hold them; samples to FLAC
segment    a part of a file, by offset and duration
silence    where a recording sounds, and more of the silence that it has
waveform   changes of an utterance's samples before training: speed, silence, noise
"""
