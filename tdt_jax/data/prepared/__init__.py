"""Datasets in tensorflow-datasets' ArrayRecord layout, without TensorFlow.

dataset.py       reads prepared datasets, record by record
builder.py       what tensorflow-datasets writes of a dataset: features, splits, shards
prepare.py       writes a dataset, shard by shard; goes on where it was stopped
recordings.py    any recordings with a manifest
librispeech.py   LibriSpeech
must_c.py        MuST-C
"""
