"""What a configuration trains and evaluates on: a tokenizer, training batches, evaluation sets."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tdt_jax import tokenizer as tokenizers
from tdt_jax.config import Config, ModelConfig
from tdt_jax.data.batches import Batches, ManifestBatches, Utterance
from tdt_jax.data.dataset import Record
from tdt_jax.data.manifest import Entry, select
from tdt_jax.data.sources import read_source
from tdt_jax.data.telephone import Telephone
from tdt_jax.data.telephone_batches import TelephoneBatches

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


def label_limit(model: ModelConfig) -> Callable[[int], float]:
    """The most labels that a number of frames can hold; -1 where no alignment exists at all.

    Of a transducer the arcs' durations add up to the frames, the last arc is a blank, and blanks
    have no duration 0. With a duration of 0 for labels any number of them fits where blanks do.
    """
    if model.kind == "CTC":
        return lambda num_frames: num_frames
    if model.durations is None or model.durations[:2] == (0, 1):
        return lambda num_frames: math.inf if num_frames else -1
    is_free = model.durations[0] == 0

    def limit(num_frames: int) -> float:
        arcs = _most_arcs(num_frames, model.durations[is_free:])
        return -1 if arcs < 1 else math.inf if is_free else arcs - 1

    return limit


@functools.cache
def _most_arcs(num_frames: int, durations: tuple[int, ...]) -> float:
    """How many durations above 0 add up to a number of frames at most; below 1 if none do."""
    most = [0.0]
    for frames in range(1, num_frames + 1):
        most.append(
            1 + max((most[frames - d] for d in durations if d <= frames), default=-math.inf)
        )
    return most[-1]


def _train_tokenizer(config: Config, texts: Sequence[str]):
    options = config.tokenizer
    if options.model:
        return tokenizers.load(options.model)
    if options.kind == "characters":
        return tokenizers.train_characters(texts)
    return tokenizers.train_sentencepiece(texts, options.vocab_size)
