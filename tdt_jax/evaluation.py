"""Word error rate, decoder steps and speed of a recogniser on a set of utterances."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from tdt_jax.config import Bucket
from tdt_jax.data.batches import Utterance, evaluation_batches
from tdt_jax.data.manifest import Entry
from tdt_jax.decode import Hypothesis
from tdt_jax.metrics import ErrorRate, character_error_rate, word_error_rate
from tdt_jax.recogniser import Recogniser
from tdt_jax.training import eval_step


class Result(NamedTuple):
    """One utterance."""

    id: str
    reference: str
    text: str
    seconds: float
    num_frames: int
    hypothesis: Hypothesis  # of numpy arrays without the batch dimension, cut to length


class Evaluation(NamedTuple):
    """A set of utterances."""

    results: list[Result]
    words: ErrorRate
    characters: ErrorRate
    audio_seconds: float
    seconds: float  # on the accelerator: features, encoder and decoder, compiled before
    compile_seconds: float
    failed: dict[str, str]  # id -> why it could not be read

    @property
    def steps_per_second(self) -> float:
        """Decoder steps per second of audio."""
        steps = sum(int(result.hypothesis.num_steps) for result in self.results)
        return steps / max(self.audio_seconds, 1e-9)

    @property
    def rnnt_steps_per_second(self) -> float:
        """What an RNN-T with the same output takes: a step for every frame and every label."""
        steps = sum(r.num_frames + int(r.hypothesis.num_labels) for r in self.results)
        return steps / max(self.audio_seconds, 1e-9)

    @property
    def rtfx(self) -> float:
        """Seconds of audio per second of work, without compilation and without reading files."""
        return self.audio_seconds / max(self.seconds, 1e-9)

    def summary(self) -> str:
        """One line."""
        return (
            f"WER {100 * self.words.rate:.2f} %  CER {100 * self.characters.rate:.2f} %  "
            f"{len(self.results)} utterances, {self.audio_seconds:.0f} s  "
            f"decoder steps per second {self.steps_per_second:.2f} "
            f"(RNN-T {self.rnnt_steps_per_second:.2f})  "
            f"RTFx {self.rtfx:.0f} after {self.compile_seconds:.1f} s of compilation"
        )


def evaluate(
    recogniser: Recogniser,
    items: Sequence[Utterance | Entry],
    buckets: Sequence[Bucket],
    *,
    decoder: str = "",
) -> Evaluation:
    """Transcribe every utterance and compare it with its text.

    Utterances that cannot be read or fit no bucket are reported in `failed` and not counted.
    `decoder` is "transducer" or "ctc", for a model that has both.
    """
    recogniser.check_decoder(decoder)
    model, sample_rate = recogniser.model, recogniser.config.features.sample_rate
    compiled, results, failed = set(), [], {}
    compile_seconds = work_seconds = 0.0
    for batch in evaluation_batches(items, buckets, sample_rate=sample_rate, failed=failed):
        arrays = jax.device_put((batch.samples, batch.num_samples))
        if batch.samples.shape not in compiled:
            compiled.add(batch.samples.shape)
            start = time.perf_counter()
            jax.block_until_ready(eval_step(model, *arrays, decoder=decoder))
            compile_seconds += time.perf_counter() - start
        start = time.perf_counter()
        hypothesis = jax.device_get(eval_step(model, *arrays, decoder=decoder))
        work_seconds += time.perf_counter() - start
        for row, (name, reference) in enumerate(zip(batch.ids, batch.texts, strict=True)):
            if not name:
                continue
            one = take(hypothesis, row)
            num_samples = int(batch.num_samples[row])
            num_features = num_samples // recogniser.config.features.hop_length
            results.append(
                Result(
                    id=name,
                    reference=reference,
                    text=recogniser.tokenizer.decode(one.labels),
                    seconds=num_samples / sample_rate,
                    num_frames=-(-num_features // 8),
                    hypothesis=one,
                )
            )
    references = [result.reference for result in results]
    texts = [result.text for result in results]
    return Evaluation(
        results,
        word_error_rate(references, texts),
        character_error_rate(references, texts),
        sum(result.seconds for result in results),
        work_seconds,
        compile_seconds,
        failed,
    )


def take(hypothesis: Hypothesis, row: int) -> Hypothesis:
    """One utterance of a batch's hypothesis, its arrays cut to the labels it has."""
    one = Hypothesis(*(np.asarray(field[row]) for field in hypothesis))
    return Hypothesis(*(field[: one.num_labels] if field.ndim else field for field in one))
