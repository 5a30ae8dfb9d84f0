"""Samples on the host, with numpy only.

reading    files and arrays to mono float32 samples; AudioError
encoded    the same from bytes in memory; samples to FLAC
segment    a part of a file, by offset and duration
silence    where a recording sounds, and more of the silence that it has
waveform   changes of an utterance's samples before training: speed, silence, noise
"""
