"""What a configuration trains and evaluates on: a tokenizer, training batches, evaluation sets."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

from tdt_jax import tokenizer as tokenizers
from tdt_jax.config import Config
from tdt_jax.data.batches import Batches, ManifestBatches
from tdt_jax.data.manifest import Entry
from tdt_jax.data.prepared.dataset import Record
from tdt_jax.data.selection import label_limit, select
from tdt_jax.data.sources import read_source
from tdt_jax.data.telephone.batches import TelephoneBatches
from tdt_jax.data.telephone.compose import Telephone
from tdt_jax.data.utterance import Utterance

NUM_TEXTS = 20_000  # composed texts that a tokenizer is trained on
NUM_DEV = 50  # composed utterances that are transcribed while training


class Task(NamedTuple):
    tokenizer: tokenizers.Characters | tokenizers.SentencePiece
    batches: Batches
    dev: Sequence[Utterance | Entry | Record]  # transcribed while training
    test: dict[str, Sequence[Utterance | Entry | Record]]  # by name; transcribed at the end
    report: list[str]  # what was skipped, in words


def make_task(config: Config, tokenizer=None) -> Task:
    """The task of `config`; the tokenizer is trained on the training text unless given.

    Raises:
      ValueError: without anything to train on, and for manifests and datasets that cannot be read.
    """
    return _telephone(config, tokenizer) if config.data.telephone else _sources(config, tokenizer)


def _telephone(config: Config, tokenizer) -> Task:
    telephone = Telephone(config.data.telephone)
    tokenizer = tokenizer or _train_tokenizer(config, telephone.texts(NUM_TEXTS))
    batches = TelephoneBatches(
        telephone,
        tokenizer,
        config.data.buckets,
        seed=config.training.seed,
        curriculum=config.data.telephone.curriculum,
    )
    # Other compositions of texts that training never says, as in the test.
    dev_config = dataclasses.replace(config.data.telephone, num_test=NUM_DEV)
    return Task(
        tokenizer,
        batches,
        dev=Telephone(dev_config, seed=1).test_set(),
        test=telephone.tests(),
        report=[],
    )


def _sources(config: Config, tokenizer) -> Task:
    data, augment = config.data, config.augment
    if not data.train:
        raise ValueError("data.train names no manifest or dataset, and data.telephone is none")
    options = dict(folder=data.folder, keys=data.keys, lowercase=data.lowercase)
    train, dev = (
        list(itertools.chain.from_iterable(read_source(name, **options) for name in names))
        for names in (data.train, data.dev)
    )
    test = {name: read_source(name, **options) for name in data.test}  # scored one by one
    tokenizer = tokenizer or _train_tokenizer(config, [entry.text for entry in train])
    limit = label_limit(config.model)
    selection = select(
        train,
        tokenizer,
        data.buckets,
        seconds_per_frame=config.model.seconds_per_frame,
        label_limit=limit,
    )
    batches = ManifestBatches(
        selection,
        data.buckets,
        seed=config.training.seed,
        sample_rate=config.model.features.sample_rate,
        speed=augment.speed,
        silence_probability=augment.silence_probability,
        silence_seconds=augment.silence_seconds,
        samples_per_frame=config.model.samples_per_frame,
        label_limit=limit,
    )
    tests = ({"dev": dev} if dev else {}) | test
    return Task(tokenizer, batches, dev, tests, [f"training: {selection.report()}"])


def _train_tokenizer(config: Config, texts: Sequence[str]):
    options = config.tokenizer
    if options.model:
        return tokenizers.load(options.model)
    if options.kind == "characters":
        return tokenizers.train_characters(texts)
    return tokenizers.train_sentencepiece(texts, options.vocab_size)
