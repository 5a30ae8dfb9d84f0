"""The task of a configuration: tokenizer, training batches, development and test sets."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tdt_jax import tokenizer as tokenizers
from tdt_jax.config import Config, TelephoneConfig
from tdt_jax.data.batches import Batches, ManifestBatches
from tdt_jax.data.selection import label_limit, select
from tdt_jax.data.sources import measured, read_source
from tdt_jax.data.telephone.batches import TelephoneBatches
from tdt_jax.data.telephone.compose import Telephone
from tdt_jax.data.utterance import StoredUtterance, Utterance
from tdt_jax.tokenizer import Tokenizer

NUM_TEXTS = 20_000  # composed texts that a tokenizer is trained on
NUM_DEV = 50  # composed utterances in the development set


class Task(NamedTuple):
    tokenizer: Tokenizer
    batches: Batches
    dev: Sequence[Utterance | StoredUtterance]  # evaluated during training
    test: Mapping[str, Sequence[Utterance | StoredUtterance]]  # by name; evaluated at the end
    report: list[str]  # lines for the log: how much there is, and what was skipped


def make_task(config: Config, tokenizer: Tokenizer | None = None) -> Task:
    """Returns the task of `config`; the tokenizer is trained on the training text unless given.

    Raises:
      ValueError: if there is nothing to train on, and for manifests and datasets that cannot be
        read.
    """
    if config.data.telephone is not None:
        return _telephone_task(config, config.data.telephone, tokenizer)
    return _source_task(config, tokenizer)


def _telephone_task(
    config: Config, telephone_config: TelephoneConfig, tokenizer: Tokenizer | None
) -> Task:
    sample_rate = config.model.features.sample_rate
    telephone = Telephone(telephone_config, sample_rate=sample_rate)
    tokenizer = tokenizer or _train_tokenizer(config, telephone.texts(NUM_TEXTS))
    batches = TelephoneBatches(
        telephone,
        tokenizer,
        config.data.buckets,
        seed=config.training.seed,
        curriculum=telephone_config.curriculum,
    )
    # Texts that do not occur in training, as in the test set, but drawn with another seed.
    dev_config = dataclasses.replace(telephone_config, num_test=NUM_DEV)
    dev = Telephone(dev_config, sample_rate=sample_rate, seed=1).test_set()
    return Task(tokenizer, batches, dev, telephone.test_sets(), report=[])


def _source_task(config: Config, tokenizer: Tokenizer | None) -> Task:
    data, augment = config.data, config.augment
    if not data.train:
        raise ValueError(
            "no training data: data.train names no manifest or dataset, and data.telephone is "
            "none; add --set data.train=train.jsonl"
        )

    def read(name: str) -> list[StoredUtterance]:
        return read_source(name, folder=data.folder, keys=data.keys, lowercase=data.lowercase)

    train = measured([entry for name in data.train for entry in read(name)])
    dev = [entry for name in data.dev for entry in read(name)]
    tests = {"dev": dev} if dev else {}
    tests |= {name: read(name) for name in data.test}
    tokenizer = tokenizer or _train_tokenizer(config, [entry.text for entry in train])
    limit = label_limit(config.model)
    selection = select(
        train,
        tokenizer,
        data.buckets,
        sample_rate=config.model.features.sample_rate,
        samples_per_frame=config.model.samples_per_frame,
        label_limit=limit,
    )
    batches = ManifestBatches(
        selection,
        data.buckets,
        seed=config.training.seed,
        sample_rate=config.model.features.sample_rate,
        samples_per_frame=config.model.samples_per_frame,
        label_limit=limit,
        speed=augment.speed,
        silence_probability=augment.silence_probability,
        silence_seconds=augment.silence_seconds,
    )
    return Task(tokenizer, batches, dev, tests, [f"training: {selection.report()}"])


def _train_tokenizer(config: Config, texts: Sequence[str]) -> Tokenizer:
    options = config.tokenizer
    if options.model:
        return tokenizers.load(options.model)
    if options.kind == "characters":
        return tokenizers.train_characters(texts)
    return tokenizers.train_sentencepiece(texts, options.vocab_size)
