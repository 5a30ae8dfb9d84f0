"""Evaluates a recogniser on a set of utterances: error rates, BLEU, decoder steps and speed."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from tdt_jax.advice.phrases import Phrase, phrase_weights
from tdt_jax.inference import metrics
from tdt_jax.inference.advised import with_prompt
from tdt_jax.inference.metrics import Bleu, ErrorRate, PhraseRates
from tdt_jax.inference.normalizers import MERGING, NOT_SCORED, make_normalizer
from tdt_jax.inference.transcript import Transcript
from tdt_jax.inference.transcription import RecordingResult, guides_of, transcribe_each
from tdt_jax.orthography import tidy
from tdt_jax.recogniser import Recogniser
from tdt_jax.runtime.process import compile_seconds
from tdt_jax.tokenizer import without_tags


class Reference(Protocol):
    """An utterance with its text, as in a manifest or a dataset."""

    @property
    def id(self) -> str: ...

    @property
    def audio(self) -> Any:
        """A recording, as `tdt_jax.transcribe` takes it."""
        ...

    @property
    def text(self) -> str: ...


class Result(NamedTuple):
    """One utterance; `reference` and the transcript are as they came, not normalized."""

    id: str
    reference: str
    transcript: Transcript
    num_steps: int  # of the decoder
    num_frames: int
    num_labels: int
    errors: int | None = None  # words wrong after normalization; None: not scored
    reference_words: int | None = None  # after normalization


class Evaluation(NamedTuple):
    """A set of utterances."""

    results: list[Result]
    words: ErrorRate
    characters: ErrorRate
    audio_seconds: float
    seconds: float  # from files to transcripts, without compilation
    compile_seconds: float
    failed: Mapping[str, str]  # id -> why it could not be read
    interval: tuple[float, float]  # of the word error rate, 95 %
    not_scored: int  # utterances whose reference normalization left empty: in no error rate
    bleu: Bleu | None = None  # of the texts as they are, if it was asked for
    normalizer: str = "none"  # by which words were compared
    boosted: tuple[str, ...] = ()  # phrases
    phrases: PhraseRates | None = None  # of the boosted phrases, if there were any

    @property
    def steps_per_second(self) -> float:
        """Decoder steps per second of audio."""
        steps = sum(result.num_steps for result in self.results)
        return steps / max(self.audio_seconds, 1e-9)

    @property
    def rnnt_steps_per_second(self) -> float:
        """Steps of an RNN-T with the same output: one for each frame and one for each label."""
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
        """Returns the evaluation in one line."""
        if not self.results:
            return f"nothing was evaluated: {len(self.failed)} utterances could not be read"
        low, high = (100 * end for end in self.interval)
        not_scored = f" ({self.not_scored} not scored)" if self.not_scored else ""
        translated = f"BLEU {self.bleu.score:.2f} ({self.bleu.signature})  " if self.bleu else ""
        phrases = ""
        if self.phrases:
            shares = (100 * share for share in self.phrases[:3])
            phrases = "phrases: precision {:.1f} %, recall {:.1f} %, F1 {:.1f} %  ".format(*shares)
        return (
            f"{translated}{phrases}WER {100 * self.words.rate:.2f} % ({low:.2f} to {high:.2f})  "
            f"CER {100 * self.characters.rate:.2f} %  "
            f"{len(self.results)} utterances{not_scored}, {self.audio_seconds:.0f} s  "
            f"decoder steps per second {self.steps_per_second:.2f} "
            f"(RNN-T {self.rnnt_steps_per_second:.2f})  "
            f"RTFx {self.rtfx:.0f} after {self.compile_seconds:.1f} s of compilation"
        )

    def as_dict(self) -> dict[str, Any]:
        """Returns everything as JSON takes it; a rate that is infinite, or of nothing, is None."""

        def finite(value: float) -> float | None:
            return value if self.results and math.isfinite(value) else None

        return {
            "wer": finite(self.words.rate),
            "wer_interval": [finite(end) for end in self.interval],
            "cer": finite(self.characters.rate),
            "bleu": self.bleu.score if self.bleu and self.results else None,
            "bleu_signature": self.bleu.signature if self.bleu else None,
            "words": self.words._asdict() | {"rate": finite(self.words.rate)},
            "phrases": self.phrases
            and {
                name: finite(value) if isinstance(value, float) else value
                for name, value in self.phrases._asdict().items()
            },
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
        """Returns the sets together in one line."""
        low, high = (100 * end for end in self.interval)
        return (
            f"WER {100 * self.wer:.2f} % as the mean of the sets, {100 * self.words.rate:.2f} % "
            f"({low:.2f} to {high:.2f}) of all words  RTFx {self.rtfx:.0f}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Returns everything as JSON takes it; a rate that is infinite, or of nothing, is None."""

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


def evaluate(
    recogniser: Recogniser,
    items: Sequence[Reference],
    *,
    batch_seconds: float | None = None,
    piece_seconds: float | None = None,
    decoder: str = "",
    boost: Sequence[Phrase] | None = None,
    normalizer: str = "none",
    bleu: bool = False,
    progress: Callable[[float], object] = lambda seconds: None,
    **advice: Any,
) -> Evaluation:
    """Transcribes every utterance, of any length, and compares the transcript with its text.

    Utterances that cannot be read are reported in `failed` and not counted.

    Args:
      recogniser: the recogniser to evaluate.
      items: utterances, entries of a manifest, or records of a dataset; their audio is read one by
        one.
      batch_seconds, piece_seconds, decoder, progress: as of
        `tdt_jax.inference.transcription.transcribe_each`.
      boost: phrases that are likely, as of `tdt_jax.transcribe`; how they were recognized is
        reported, of the texts as they were compared.
      normalizer: one of `normalizers.NORMALIZERS`, for references and transcripts alike; see
        `score`.
      bleu: compute corpus BLEU too, of the texts as they are.

      advice: allowed, language, lm and lm_weight, as of `tdt_jax.transcribe`.

    Raises: ValueError for a decoder that the model does not have, for advice that cannot be
    followed, for an unknown normalizer, or without the package that the normalizer or `bleu` needs;
    all of it before anything runs.
    """
    recogniser.check_decoder(decoder)
    make_normalizer(normalizer)
    if bleu:
        metrics.bleu([], [])
    recogniser, language = with_prompt(recogniser, advice.pop("language", None))
    advice |= dict(boost=boost, language=language)
    guide_of = guides_of(recogniser, len(items), decoder=decoder, **advice)
    start, compiling = time.perf_counter(), compile_seconds()
    results: dict[int, Result] = {}
    failed: dict[str, str] = {}
    for position, result in transcribe_each(
        recogniser,
        (item.audio for item in items),
        batch_seconds=batch_seconds,
        piece_seconds=piece_seconds,
        decoder=decoder,
        guide_of=guide_of,
        progress=progress,
    ):
        item = items[position]
        if isinstance(result, RecordingResult):
            results[position] = Result(item.id, item.text, *result)
        else:
            failed[item.id] = str(result)
    seconds, compiling = time.perf_counter() - start, compile_seconds() - compiling
    return score(
        [results[position] for position in sorted(results)],
        normalizer=normalizer,
        bleu=bleu,
        boosted=tuple(phrase_weights(boost)) if boost else (),
        seconds=max(seconds - compiling, 0.0),
        compile_seconds=compiling,
        failed=failed,
    )


def score(
    results: Sequence[Result],
    *,
    normalizer: str = "none",
    bleu: bool = False,
    boosted: tuple[str, ...] = (),
    seconds: float = 0.0,
    compile_seconds: float = 0.0,
    failed: Mapping[str, str] | None = None,
) -> Evaluation:
    """Compares transcripts with their references; returns the evaluation.

    Tags, and spaces before closing marks, which no transcript has, are taken out of references
    before they are normalized. With another normalizer than "none" a reference that it leaves empty
    ("um"), or that asks to be ignored, is in no error rate, as on the Open ASR Leaderboard; with
    "none" a transcript of speech without a reference counts as insertions. With "leaderboard"
    compounds merge ("white paper" is "whitepaper"), in the word error rate alone.

    Args:
      results: of the utterances, scored or not.
      normalizer, bleu: as of `evaluate`.
      boosted: the phrases that were boosted.
      seconds, compile_seconds, failed: as in an Evaluation.
    """
    references, transcripts = normalized_texts(results, normalizer)
    rows = [
        row
        for row, reference in enumerate(references)
        if normalizer == "none" or reference not in NOT_SCORED
    ]
    references, transcripts = [references[row] for row in rows], [transcripts[row] for row in rows]
    counts = metrics.word_counts(references, transcripts, merge_compounds=normalizer in MERGING)
    errors, lengths = counts[:, :3].sum(1), counts[:, 3]
    scored = list(results)
    for row, wrong, length in zip(rows, errors.tolist(), lengths.tolist(), strict=True):
        scored[row] = scored[row]._replace(errors=wrong, reference_words=length)
    return Evaluation(
        results=scored,
        words=metrics.pooled(counts),
        characters=metrics.character_error_rate(references, transcripts),
        audio_seconds=sum(result.transcript.duration for result in results),
        seconds=seconds,
        compile_seconds=compile_seconds,
        failed=failed or {},
        interval=metrics.confidence_interval(errors, lengths),
        not_scored=len(results) - len(rows),
        bleu=metrics.bleu(*_texts(results)) if bleu else None,
        normalizer=normalizer,
        boosted=boosted,
        phrases=metrics.phrase_rates(references, transcripts, boosted) if boosted else None,
    )


def merged(parts: Sequence[Evaluation], ids: Sequence[str]) -> Evaluation:
    """Returns one evaluation of the parts that several processes have evaluated at the same time.

    `ids` are those of all utterances, in order.
    """
    place = {name: position for position, name in enumerate(ids)}
    results = [result for part in parts for result in part.results]
    return score(
        sorted(results, key=lambda result: place[result.id]),
        normalizer=parts[0].normalizer,
        bleu=parts[0].bleu is not None,
        boosted=parts[0].boosted,
        seconds=max(part.seconds for part in parts),
        compile_seconds=max(part.compile_seconds for part in parts),
        failed={name: why for part in parts for name, why in part.failed.items()},
    )


def average(evaluations: Sequence[Evaluation]) -> Average:
    """Returns several sets together: the mean of their rates, as leaderboards have it, and pooled.

    Raises: ValueError without any.
    """
    if not evaluations:
        raise ValueError("there is no evaluation to average")
    results = [result for each in evaluations for result in each.results]
    scored = [result for result in results if result.errors is not None]
    counts = np.array([each.words[2:] for each in evaluations])  # without rate and errors
    return Average(
        wer=sum(each.words.rate if each.results else math.nan for each in evaluations)
        / len(evaluations),
        words=metrics.pooled(counts),
        interval=metrics.confidence_interval(
            np.array([result.errors for result in scored]),
            np.array([result.reference_words for result in scored]),
        ),
        audio_seconds=sum(each.audio_seconds for each in evaluations),
        seconds=sum(each.seconds for each in evaluations),
    )


def normalized_texts(results: Sequence[Result], normalizer: str) -> tuple[list[str], list[str]]:
    """Returns references and transcripts as `score` compares their words."""
    normalize = make_normalizer(normalizer)
    references, transcripts = _texts(results)
    references = [tidy(without_tags(text)) for text in references]
    return [normalize(text) for text in references], [normalize(text) for text in transcripts]


def _texts(results: Sequence[Result]) -> tuple[list[str], list[str]]:
    """Returns references and transcripts as they are."""
    return [each.reference for each in results], [each.transcript.text for each in results]
