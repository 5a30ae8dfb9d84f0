"""Audio -> transcripts, and how good they are.

recognition.py             samples -> Hypothesis, on one device or by rows on several
advised.py                 the advice of a batch, from that of its rows
scheduler.py               windows of many recordings -> batches of few shapes -> hypotheses
long_form.py               long audio -> windows; words of the windows -> words of the recording
transcription.py           transcribe: recordings -> transcripts; shapes, warm_up
shared_batches.py          recordings that come and go, in shared batches: for a server
streaming.py               Stream: transcribes audio while it comes
cached.py                  streams of causal models: one chunk after another, with a state
streams.py                 Streams: many live streams at once
windowed.py                streams of other models: a window of audio for every chunk
stream_words.py            labels of a stream -> words, certain or pending; ends of turns
end_of_turn.py             EndOfTurn, the rule by which a turn is over; EndOfUtterance
transcript.py              Transcript, Segment, Word, Token: times and confidence
formats.py                 a transcript as txt, srt, vtt, json, tsv, ctm
evaluation.py              evaluate: error rates and speed on a set of utterances
evaluation_table.py        evaluations as a table in Markdown
error_analysis.py          the worst utterances and the commonest confusions
metrics.py                 word and character error rate, confidence interval, BLEU
normalizers.py             text before it is compared: none, whisper, leaderboard
leaderboard_normalizer.py  the normalizer of the Open ASR Leaderboard
"""

from tdt_jax.inference.end_of_turn import EndOfTurn, EndOfUtterance
from tdt_jax.inference.streaming import Stream
from tdt_jax.inference.streams import Streams
from tdt_jax.inference.transcript import Segment, Token, Transcript, Word
from tdt_jax.inference.transcription import transcribe

__all__ = [
    "EndOfTurn",
    "EndOfUtterance",
    "Segment",
    "Stream",
    "Streams",
    "Token",
    "Transcript",
    "Word",
    "transcribe",
]
