"""Audio -> transcripts, and how good they are.

recognition.py       decode_samples: samples -> Hypothesis, on one device or by rows on many
transcription.py     transcribe: files and arrays, in batches of few shapes; warm_up
long_form.py         where long audio is cut, and which window a word belongs to
streaming.py         Stream
transcript.py        Transcript, Segment, Word, Token: times and confidence
formats.py           txt, srt, vtt, json, tsv, ctm
evaluation.py        evaluate, Evaluation, merged
evaluation_table.py  evaluations as a table
error_analysis.py    what went wrong: words inserted, deleted, substituted
metrics.py           word and character error rate, BLEU, normalizers
leaderboard.py       the normalizer of the Open ASR Leaderboard
"""

from tdt_jax.inference.streaming import Stream
from tdt_jax.inference.transcript import Segment, Token, Transcript, Word
from tdt_jax.inference.transcription import transcribe

__all__ = ["Segment", "Stream", "Token", "Transcript", "Word", "transcribe"]
