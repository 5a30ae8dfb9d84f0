"""Word error rate, BLEU, decoder steps and speed of a recogniser on a set of utterances."""

import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tdt_jax.data.manifest import Entry
from tdt_jax.data.prepared.dataset import Record
from tdt_jax.data.utterance import Utterance
from tdt_jax.inference import metrics
from tdt_jax.inference.metrics import ErrorRate
from tdt_jax.inference.transcript import Transcript
from tdt_jax.inference.transcription import RecordingResult, transcribe_each
from tdt_jax.orthography import tidy
from tdt_jax.recogniser import Recogniser
from tdt_jax.runtime.process import compile_seconds
from tdt_jax.tokenizer import without_tags


class Result(NamedTuple):
    """One utterance; `reference` and the transcript are as they came, not normalised."""

    id: str
    reference: str
    transcript: Transcript
    num_steps: int  # of the decoder
    num_frames: int
    num_labels: int
    errors: int | None = None  # words wrong after normalisation; None: not scored
    reference_words: int | None = None  # after normalisation


class Evaluation(NamedTuple):
    """A set of utterances."""

    results: list[Result]
    words: ErrorRate
    characters: ErrorRate
    audio_seconds: float
    seconds: float  # from files to transcripts, without compilation
    compile_seconds: float
    failed: dict[str, str]  # id -> why it could not be read
    interval: tuple[float, float]  # of the word error rate, 95 %
    not_scored: int  # utterances whose reference normalisation left empty: in no error rate
    bleu: metrics.Bleu | None = None  # of the texts as they are, if it was asked for
    normaliser: str = "none"  # by which words were compared

    @property
    def steps_per_second(self) -> float:
        """Decoder steps per second of audio."""
        steps = sum(result.num_steps for result in self.results)
        return steps / max(self.audio_seconds, 1e-9)

    @property
    def rnnt_steps_per_second(self) -> float:
        """What an RNN-T with the same output takes: a step for each frame heard and each label."""
        steps = sum(result.num_frames + result.num_labels for result in self.results)
        return steps / max(self.audio_seconds, 1e-9)

    @property
    def rtfx(self) -> float:
        """Seconds of audio per second of work: all the audio over all the time, for the set.

        The time is that of the whole, from files to transcripts: reading (in a thread beside the
        rest), features, encoder, decoder, labels to text; compilation is left out, as the Open ASR
        Leaderboard does it by a warm-up. The audio is that of `results`, without padding, and with
        what is not scored, which the leaderboard drops beforehand.
        """
        return self.audio_seconds / max(self.seconds, 1e-9)

    def summary(self) -> str:
        """One line."""
        if not self.results:
            return f"nothing was evaluated: {len(self.failed)} utterances could not be read"
        low, high = (100 * end for end in self.interval)
        not_scored = f" ({self.not_scored} not scored)" if self.not_scored else ""
        translated = f"BLEU {self.bleu.score:.2f} ({self.bleu.signature})  " if self.bleu else ""
        return (
            f"{translated}WER {100 * self.words.rate:.2f} % ({low:.2f} to {high:.2f})  "
            f"CER {100 * self.characters.rate:.2f} %  "
            f"{len(self.results)} utterances{not_scored}, {self.audio_seconds:.0f} s  "
            f"decoder steps per second {self.steps_per_second:.2f} "
            f"(RNN-T {self.rnnt_steps_per_second:.2f})  "
            f"RTFx {self.rtfx:.0f} after {self.compile_seconds:.1f} s of compilation"
        )

    def as_dict(self) -> dict:
        """Everything, as JSON takes it; a rate that is infinite, or of nothing, is None."""

        def finite(value: float) -> float | None:
            return value if self.results and math.isfinite(value) else None

        return {
            "wer": finite(self.words.rate),
            "wer_interval": [finite(end) for end in self.interval],
            "cer": finite(self.characters.rate),
            "bleu": self.bleu.score if self.bleu and self.results else None,
            "bleu_signature": self.bleu.signature if self.bleu else None,
            "words": self.words._asdict() | {"rate": finite(self.words.rate)},
            "not_scored": self.not_scored,
            "audio_seconds": self.audio_seconds,
            "decoder_steps_per_second": self.steps_per_second,
            "rnnt_steps_per_second": self.rnnt_steps_per_second,
            "seconds": self.seconds,
            "rtfx": self.rtfx,
            "compile_seconds": self.compile_seconds,
            "failed": self.failed,
            "utterances": [
                {
                    "id": each.id,
                    "reference": each.reference,
                    "text": each.transcript.text,
                    "seconds": each.transcript.duration,
                    "decoder_steps": each.num_steps,
                    "errors": each.errors,
                    "reference_words": each.reference_words,
                }
                for each in self.results
            ],
        }


def evaluate(
    recogniser: Recogniser,
    items: Sequence[Utterance | Entry | Record],
    *,
    batch_seconds: float | None = None,
    piece_seconds: float | None = None,
    decoder: str = "",
    normaliser: str = "none",
    bleu: bool = False,
    progress: Callable[[float], object] = lambda seconds: None,
) -> Evaluation:
    """Transcribe every utterance, of any length, and compare it with its text.

    Utterances that cannot be read are reported in `failed` and not counted.

    Args:
      recogniser: what is evaluated.
      items: utterances, entries of a manifest, or records of a dataset, read one by one.
      batch_seconds, piece_seconds, decoder, progress: as of `tdt_jax.inference.transcription`.
      normaliser: one of `metrics.normaliser`'s; goes over references and hypotheses before words
        and characters are counted. Tags, and spaces before closing marks, which no transcript has,
        are taken out of references. With another than "none" a reference that it leaves empty
        ("um"), or that asks to be ignored, is in no error rate, as on the Open ASR Leaderboard;
        with "none" what is heard where nothing was said counts as insertions. With "leaderboard"
        compounds merge ("white paper" is "whitepaper"), in the word error rate alone.
      bleu: compute corpus BLEU too, of the texts as they are.

    Raises: ValueError for a decoder or normaliser that there isn't, or without the package that
    `bleu` needs, before anything runs.
    """
    recogniser.check_decoder(decoder)
    metrics.normaliser(normaliser)  # an error comes early
    if bleu:
        metrics.bleu([], [])  # likewise
    start, compiling = time.perf_counter(), compile_seconds()
    audio = (item.audio for item in items)
    options = dict(batch_seconds=batch_seconds, piece_seconds=piece_seconds, decoder=decoder)
    results, failed = {}, {}
    for position, heard in transcribe_each(recogniser, audio, progress=progress, **options):
        item = items[position]
        if isinstance(heard, RecordingResult):
            results[position] = Result(item.id, item.text, *heard)
        else:
            failed[item.id] = str(heard)
    seconds, compiling = time.perf_counter() - start, compile_seconds() - compiling
    results = [results[position] for position in sorted(results)]
    return Evaluation(
        **score(results, normaliser),
        audio_seconds=sum(result.transcript.duration for result in results),
        seconds=max(seconds - compiling, 0.0),
        compile_seconds=compiling,
        failed=failed,
        bleu=metrics.bleu(*_texts(results)) if bleu else None,
        normaliser=normaliser,
    )


def merged(parts: Sequence[Evaluation], ids: Sequence[str]) -> Evaluation:
    """One evaluation of what several processes have evaluated at the same time; `ids` in order."""
    place = {name: position for position, name in enumerate(ids)}
    results = [result for part in parts for result in part.results]
    results.sort(key=lambda result: place[result.id])
    return Evaluation(
        **score(results, parts[0].normaliser),
        audio_seconds=sum(part.audio_seconds for part in parts),
        seconds=max(part.seconds for part in parts),
        compile_seconds=max(part.compile_seconds for part in parts),
        failed={name: why for part in parts for name, why in part.failed.items()},
        bleu=metrics.bleu(*_texts(results)) if parts[0].bleu is not None else None,
        normaliser=parts[0].normaliser,
    )


class Average(NamedTuple):
    """Several sets together."""

    wer: float  # the mean of the sets' rates, each set counting alike; NaN: a set has none
    words: ErrorRate  # of all the sets' words, each word counting alike
    interval: tuple[float, float]  # of the latter's rate, 95 %
    audio_seconds: float
    seconds: float

    @property
    def rtfx(self) -> float:
        """All the audio over all the time."""
        return self.audio_seconds / max(self.seconds, 1e-9)

    def summary(self) -> str:
        """One line."""
        low, high = (100 * end for end in self.interval)
        return (
            f"WER {100 * self.wer:.2f} % as the mean of the sets, {100 * self.words.rate:.2f} % "
            f"({low:.2f} to {high:.2f}) of all words  RTFx {self.rtfx:.0f}"
        )

    def as_dict(self) -> dict:
        """Everything, as JSON takes it; a rate that is infinite, or of nothing, is None."""

        def finite(value: float) -> float | None:
            return value if math.isfinite(value) else None

        return {
            "wer_mean": finite(self.wer),
            "wer_pooled": finite(self.words.rate),
            "wer_pooled_interval": [finite(end) for end in self.interval],
            "words": self.words._asdict() | {"rate": finite(self.words.rate)},
            "audio_seconds": self.audio_seconds,
            "seconds": self.seconds,
            "rtfx": self.rtfx,
        }


def average(evaluations: Sequence[Evaluation]) -> Average:
    """Several sets together: the mean of their rates, as leaderboards have it, and pooled.

    Raises: ValueError without any.
    """
    if not evaluations:
        raise ValueError("there is no evaluation to average")
    results = [result for each in evaluations for result in each.results]
    scored = [(each.errors, each.reference_words) for each in results if each.errors is not None]
    errors, lengths = zip(*scored, strict=True) if scored else ((), ())
    counts = np.array([each.words[2:] for each in evaluations])  # without rate and errors
    return Average(
        wer=sum(each.words.rate if each.results else math.nan for each in evaluations)
        / len(evaluations),
        words=metrics.pooled(counts),
        interval=metrics.confidence_interval(errors, lengths),
        audio_seconds=sum(each.audio_seconds for each in evaluations),
        seconds=sum(each.seconds for each in evaluations),
    )


def _texts(results: Sequence[Result]) -> tuple[list[str], list[str]]:
    """References and hypotheses."""
    return [each.reference for each in results], [each.transcript.text for each in results]


def normalised(results: Sequence[Result], normaliser: str) -> tuple[list[str], list[str]]:
    """References and hypotheses as their words are compared."""
    normalise = metrics.normaliser(normaliser)
    references, texts = _texts(results)
    references = [tidy(without_tags(text)) for text in references]
    return [normalise(text) for text in references], [normalise(text) for text in texts]


def score(results: Sequence[Result], normaliser: str) -> dict:
    """The fields of an Evaluation that come of the words: rates, and `results` with their errors.

    `normaliser` is as in `evaluate`.
    """
    references, texts = normalised(results, normaliser)
    rows = [
        row
        for row, reference in enumerate(references)
        if normaliser == "none" or reference not in metrics.NOT_SCORED
    ]
    references, texts = [references[row] for row in rows], [texts[row] for row in rows]
    counts = metrics.word_counts(references, texts, merge_compounds=normaliser in metrics.MERGING)
    errors, lengths = counts[:, :3].sum(1), counts[:, 3]
    scored = list(results)
    for row, wrong, length in zip(rows, errors.tolist(), lengths.tolist(), strict=True):
        scored[row] = scored[row]._replace(errors=wrong, reference_words=length)
    return {
        "results": scored,
        "words": metrics.pooled(counts),
        "characters": metrics.character_error_rate(references, texts),
        "interval": metrics.confidence_interval(errors, lengths),
        "not_scored": len(results) - len(rows),
    }
