"""Utterances, training batches as a function of the step, and corpora. Knows no jax.

utterance.py     StoredUtterance, Utterance; Batch, collate: padding to a bucket's shape
buckets.py       the samples of a bucket, and the bucket that an utterance fits
manifest.py      JSONL manifests, read and written
sources.py       read_source: a manifest, or FOLDER:SPLIT of a prepared dataset
selection.py     which utterances can be trained on, and why the others cannot
batches.py       training batches from files
mixture.py       training batches from two sources, at a share
task.py          make_task: tokenizer, batches, development and test sets of a configuration
prepared/        ArrayRecord datasets, without TensorFlow
telephone/       connected telephone speech, composed
"""
