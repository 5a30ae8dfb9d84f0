"""Samples on the host, without JAX; the only room that imports soundfile, soxr and PyAV.

reading.py        any recording to mono float32 samples: what the rest of the package calls
errors.py         AudioError, AudioWarning
request.py        which part of a recording is wanted, and what happens if it is damaged
inputs.py         the forms of a recording in Python: paths, open files, bytes, arrays with a rate
concatenated.py   files that are several, joined end to end: chained Ogg, joined MP3
sndfile.py        a file's samples by libsndfile
ffmpeg.py         a file's samples by FFmpeg (PyAV), placed on the time line
downmix.py        channels to one
segment.py        a part of a file, by offset and duration
encoded.py        audio files as bytes in memory; FLAC and lossy codecs
live.py           microphone; PCM and WAV from a pipe
silence.py        digital and near silence: where a recording sounds
waveform.py       changes to samples: rate, speed, silence, noise
"""
