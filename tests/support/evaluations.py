"""Evaluations of transcripts that nobody has transcribed."""

from tdt_jax.inference.evaluation import Evaluation, Result, score
from tdt_jax.inference.transcript import Transcript

CLEAN = [("one two", "one two"), ("three four five", "three four fine"), ("six", "six")]
NOISY = [("one two", "many one too"), ("Um.", "no"), ("a white paper", "a whitepaper")]


def evaluated(texts, normalizer="none", seconds=2.0, failed=()) -> Evaluation:
    """Of (reference, transcript), a second of audio each."""
    results = [
        Result(f"{i}.wav", reference, Transcript(text, [], [], [], 1.0), 3, 12, 2)
        for i, (reference, text) in enumerate(texts)
    ]
    failures = {name: "bad" for name in failed}
    return score(results, normalizer=normalizer, seconds=seconds, failed=failures)
