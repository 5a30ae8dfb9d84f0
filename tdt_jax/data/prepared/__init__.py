"""Datasets in tensorflow-datasets' ArrayRecord layout, without TensorFlow.

dataset.py       reads prepared datasets, record by record
builder.py       the builder of tensorflow-datasets that the datasets share
prepare.py       writes a dataset, shard by shard; resumes where it was stopped
recordings.py    any recordings with a manifest
librispeech.py   LibriSpeech
must_c.py        MuST-C, speech translation
"""
