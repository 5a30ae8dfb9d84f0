"""Ray Data: audio paths or bytes to transcripts, on a cluster. Needs pip install 'tdt-jax[ray]'."""

import dataclasses
from typing import Any

import pyarrow as pa
import ray.data  # pyright: ignore[reportMissingImports]  (optional)

from tdt_jax.audio.errors import AudioError
from tdt_jax.checkpoints import loading
from tdt_jax.inference.transcript import Transcript
from tdt_jax.inference.transcription import transcribe_each, warm_up
from tdt_jax.recogniser import Recogniser, with_lookahead
from tdt_jax.runtime import process, sharding

WORDS = pa.list_(
    pa.struct(
        {
            "text": pa.string(),
            "start": pa.float64(),
            "end": pa.float64(),
            "confidence": pa.float64(),
            "probability": pa.float64(),
            "space_before": pa.bool_(),
        }
    )
)
OPTIONS = frozenset(
    ("batch_seconds", "piece_seconds", "decoder", "keep_tags", "sample_rate", "track", "damaged")
)
COLUMNS = {  # that are added to a dataset
    "text": pa.string(),
    "words": WORDS,
    "language": pa.string(),
    "duration": pa.float64(),
    "error": pa.string(),
}


def transcribe_dataset(
    dataset: ray.data.Dataset,
    model: str,
    *,
    column: str = "path",
    hosts: int | tuple[int, int] = 1,
    batch_size: int = 128,
    lookahead: float | None = None,
    loading_options: dict[str, Any] | None = None,
    transcribing_options: dict[str, Any] | None = None,
    **resources: Any,
) -> ray.data.Dataset:
    """Returns a dataset with the transcript of each row's recording.

    The columns text, words, language, duration and error are added; error says why a recording
    cannot be read, and its other columns are then null. A column of bytes is dropped. A batch whose
    actor dies is transcribed again by another; each row comes once.

        dataset = ray.data.from_items([{"path": path} for path in paths])
        dataset = transcribe_dataset(dataset, "gs://models/run", hosts=8, resources={"TPU": 4})
        dataset.write_parquet("transcripts")

    Args:
      dataset: with a column of audio.
      model: a checkpoint that every host can read, as `tdt_jax.load` takes.
      column: of paths that every host can read, or of the bytes of files.
      hosts: how many actors there are, each of which owns the accelerators of its host; or the
        fewest and the most of them.
      batch_size: recordings that an actor is given at a time.
      lookahead: of a causal model in seconds; by default its first.
      loading_options: as of `tdt_jax.load`.
      transcribing_options: as of `tdt_jax.transcribe`, of those in OPTIONS; no advice.
      resources: what an actor has for itself, and other options of Ray's `map_batches`: num_gpus=8,
        or resources={"TPU": 4}; all of a host's accelerators, so that the host has no other actor.

    Raises:
      ValueError: for a dataset without this column, or with one that actors add; and for other
        transcribing options.
    """
    if unknown := sorted(set(transcribing_options or {}) - OPTIONS):
        raise ValueError(
            f"transcribing_options cannot have {', '.join(unknown)}; there are "
            + ", ".join(sorted(OPTIONS))
        )
    names = dataset.columns() or []
    if column not in names:
        raise ValueError(f"the dataset has no column {column!r}; it has {', '.join(names)}")
    if taken := sorted(set(names) & set(COLUMNS)):
        raise ValueError(f"the dataset has columns that transcripts are to have: {taken}")
    return dataset.map_batches(
        TranscribingActor,
        fn_constructor_kwargs=dict(
            model=model,
            column=column,
            lookahead=lookahead,
            loading_options=loading_options or {},
            transcribing_options=transcribing_options or {},
        ),
        batch_format="pyarrow",
        batch_size=batch_size,
        concurrency=hosts,
        **resources,
    )


class TranscribingActor:
    """Transcribes batches of recordings on all accelerators of a host."""

    def __init__(
        self,
        model: str,
        column: str,
        lookahead: float | None,
        loading_options: dict[str, Any],
        transcribing_options: dict[str, Any],
    ):
        process.set_up()
        process.require_devices()
        options = {"sharding": sharding.on_accelerators(), **loading_options}
        recogniser = loading.load(model, **options)
        self._recogniser: Recogniser = (
            recogniser if lookahead is None else with_lookahead(recogniser, lookahead)
        )
        self._column, self._options = column, transcribing_options
        shaping = {"batch_seconds", "piece_seconds", "decoder"} & set(self._options)
        for _ in warm_up(self._recogniser, **{name: self._options[name] for name in shaping}):
            pass

    def __call__(self, table: pa.Table) -> pa.Table:
        """Returns a table with the transcripts of its recordings, row by row."""
        recordings = table[self._column].to_pylist()
        rows: list[dict[str, Any]] = [{}] * len(recordings)
        for position, result in transcribe_each(
            self._recogniser, recordings, warn=lambda message: None, **self._options
        ):
            if isinstance(result, AudioError):
                rows[position] = {"error": str(result)}
            else:
                rows[position] = _columns(result.transcript)
        kind = table.schema.field(self._column).type
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            table = table.drop_columns([self._column])
        for name, kind in COLUMNS.items():
            table = table.append_column(name, pa.array([row.get(name) for row in rows], kind))
        return table


def _columns(transcript: Transcript) -> dict[str, Any]:
    return {
        "text": transcript.text,
        "words": [dataclasses.asdict(word) for word in transcript.words],
        "language": transcript.language,
        "duration": transcript.duration,
    }
