"""Utterances, training batches as a function of the step, and corpora. Knows no jax.

utterance.py     StoredUtterance, Utterance; Batch, collate: padding to a bucket's shape
buckets.py       the samples of a bucket, and the bucket that an utterance fits
manifest.py      JSONL manifests, read and written
tables.py        CSV, TSV, JSONL of `datasets`; folders of recordings with texts
parquet.py       Parquet files of `datasets`
sources.py       read_source: any of these, or a split of a prepared dataset
checking.py      what may spoil a training: texts, files, leakage
selection.py     which utterances can be trained on, and why the others cannot
batches.py       training batches from files
mixture.py       training batches from two sources, at a share
task.py          make_task: tokenizer, batches, development and test sets of a configuration
prepared/        ArrayRecord datasets, without TensorFlow
telephone/       connected telephone speech, composed
"""
