"""A recogniser as StableHLO: from samples to labels, times and durations in one program.

    OUT/export.json               what the programs take and return, vocabulary, configuration
    OUT/parameters.safetensors    the parameters, by name
    OUT/*.stablehlo               a program for a platform, serialized by `jax.export`

JAX alone runs it, on the platform that the program was exported for. On a CPU the number of
utterances and their length are open; elsewhere programs have fixed shapes. A causal transducer also
has programs for streams, a step and its first state.
"""

import dataclasses
import importlib.metadata
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tdt_jax.checkpoints.formats.safetensors import write_safetensors
from tdt_jax.config import ModelConfig
from tdt_jax.decoding.hypothesis import Hypothesis
from tdt_jax.exports.folder import check_is_free, written_whole
from tdt_jax.inference.cached import Feed, StepState, decode_step, start_steps
from tdt_jax.inference.recognition import decode_samples
from tdt_jax.models.transducer import Transducer
from tdt_jax.recogniser import Recogniser
from tdt_jax.runtime import backend
from tdt_jax.runtime.pytree import from_named_leaves, named_leaves

EXPORT_FILE, PARAMETERS_FILE = "export.json", "parameters.safetensors"
FORMAT, FORMAT_VERSION = "tdt_jax.stablehlo", 1
PLATFORMS = {"cpu": "cpu", "cuda": "gpu", "tpu": "tpu"}  # jax.export's names: those of `backend`
SECONDS = (5.0, 10.0, 20.0, 30.0)  # of programs of fixed shapes
ROWS = (1, 8)
MIN_FRAMES, MAX_FRAMES = 4, 1025  # of a program of open shape: 0.32 to 82 s

OUTPUTS = {
    "labels": "[B, L] int32, indices into the vocabulary; the first num_labels of a row are valid",
    "num_labels": "[B] int32",
    "times": "[B, L] int32, encoder frame at which each label is emitted",
    "durations": "[B, L] int32, frames predicted with the label (RNN-T: 0; CTC: of its run)",
    "scores": "[B, L] float32, log-probability of the label under the token head, in nats",
    "entropies": "[B, L] float32, entropy of the token head at the emission, in nats",
    "num_steps": "[B] int32, decoder steps that the utterance needed",
}


class Program(NamedTuple):
    """One program of an export."""

    file: str
    kind: str  # "transcribe", "start" or "step"
    platform: str
    rows: int | None  # None: any number
    samples: int | None  # in a row; None: any multiple of `sample_multiple`
    exported: Any


def export_stablehlo(
    recogniser: Recogniser,
    folder: str | os.PathLike,
    *,
    platforms: Sequence[str] = ("cpu",),
    seconds: Sequence[float] = (),
    rows: Sequence[int] = (),
    decoder: str = "",
) -> None:
    """Writes a recogniser as StableHLO: programs, parameters and a description.

    Every program `transcribe` returns what `tdt_jax.transcribe` decodes of one window of audio:
    the arrays of a `Hypothesis`. Kernels are left out: StableHLO promises nothing about them.

    Args:
      recogniser: from `tdt_jax.load`.
      folder: must not exist, or be empty; it is written whole or not at all.
      platforms: of "cpu", "cuda" and "tpu".
      seconds: lengths of programs of fixed shapes, by default 5, 10, 20 and 30 s.
      rows: numbers of utterances in programs of fixed shapes, by default 1 and 8; those of streams
        have the first. Without `seconds` and `rows` there is on a CPU, for attention over all
        frames, one program for any number of utterances of 0.32 to 82 s.
      decoder: "transducer" or "ctc", of a model that has both; by default the first that it has.

    Raises:
      ValueError: for a folder that holds something, an unknown platform or decoder, lengths or
        numbers that are not above 0, or a package that is not installed.
    """
    folder = Path(folder)
    _check(recogniser, folder, platforms, seconds, rows, decoder)
    decoder = decoder or recogniser.config.decoders[0]
    programs = [
        program
        for platform in platforms
        for program in _programs(recogniser, platform, seconds, rows, decoder)
    ]
    with written_whole(folder) as part:
        leaves = {name: np.asarray(leaf) for name, leaf in named_leaves(recogniser.model).items()}
        write_safetensors(part / PARAMETERS_FILE, leaves)
        for program in programs:
            (part / program.file).write_bytes(program.exported.serialize())
        description = json.dumps(
            _description(recogniser, decoder, programs), ensure_ascii=False, indent=1
        )
        (part / EXPORT_FILE).write_text(description, encoding="utf-8")


def _check(recogniser, folder: Path, platforms, seconds, rows, decoder: str) -> None:
    recogniser.check_decoder(decoder)
    check_is_free(folder)
    if not platforms or set(platforms) - set(PLATFORMS):
        known = ", ".join(PLATFORMS)
        raise ValueError(f"platforms must be of {known}, got {', '.join(platforms) or 'none'}")
    if not all(0 < each <= 7200 for each in seconds) or not all(each > 0 for each in rows):
        raise ValueError(
            f"seconds and rows must be above 0 (seconds at most 7200), got {[*seconds]}, {[*rows]}"
        )
    try:
        import flatbuffers  # noqa: F401  # jax.export serializes with it
    except ImportError:
        raise ValueError("the export needs flatbuffers: pip install 'tdt-jax[export]'") from None


def _programs(recogniser, platform: str, seconds, rows, decoder: str) -> list[Program]:
    """Returns the programs of one platform."""
    model, config = recogniser.model, recogniser.config
    parameters = _shapes(named_leaves(model))

    def transcribe(parameters, samples, num_samples):
        model_ = from_named_leaves(parameters, model)
        return _outputs(decode_samples(model_, samples, num_samples, decoder=decoder))

    def exported(function: Callable, *shapes) -> Any:
        with backend.assume(PLATFORMS[platform], kernels=False):
            return jax.export.export(jax.jit(function), platforms=[platform])(*shapes)

    programs = []
    for size, number in _sizes(config, platform, seconds, rows):
        shapes = _struct((number, size)), _struct((number,), jnp.int32)
        is_open = not isinstance(size, int)
        name = "" if is_open else f"-{size / config.features.sample_rate:g}s-{number}"
        programs.append(
            Program(
                f"{platform}{name}.stablehlo",
                "transcribe",
                platform,
                None if is_open else number,
                None if is_open else size,
                exported(transcribe, parameters, *shapes),
            )
        )
    is_causal = config.encoder.is_causal and config.features.normalize is not None
    if is_causal and decoder == "transducer":
        programs += _stream_programs(model, platform, (rows or ROWS)[0], exported)
    return programs


def _stream_programs(model: Transducer, platform: str, rows: int, exported) -> list[Program]:
    """Returns the programs of streams: the state before the first step, and a step."""
    parameters = _shapes(named_leaves(model))
    feed = Feed(model.config)
    size = max(feed.step, feed.first)
    state = jax.eval_shape(lambda: start_steps(model, batch_size=rows))

    def start(parameters):
        return named_leaves(start_steps(from_named_leaves(parameters, model), batch_size=rows))

    def step(parameters, samples, num_samples, last, restart, leaves):
        before: StepState = from_named_leaves(leaves, state)
        model_ = from_named_leaves(parameters, model)
        hypothesis, num_frames, after = decode_step(
            model_, samples, num_samples, last, restart, None, before
        )
        return _outputs(hypothesis), num_frames, named_leaves(after)

    flags = _struct((rows,), jnp.bool_)
    shapes = _struct((rows, size)), _struct((rows,), jnp.int32), flags, flags
    return [
        Program(f"{platform}-start-{rows}.stablehlo", "start", platform, rows, None,
                exported(start, parameters)),
        Program(f"{platform}-step-{rows}.stablehlo", "step", platform, rows, size,
                exported(step, parameters, *shapes, _shapes(named_leaves(state)))),
    ]  # fmt: skip


def _sizes(config: ModelConfig, platform: str, seconds, rows) -> list[tuple[Any, Any]]:
    """Returns samples in a row, and rows, of each program; symbolic where they are open."""
    frame = config.samples_per_frame
    if platform == "cpu" and not (seconds or rows) and _is_open(config):
        # The last is what the shift of relative positions needs to know.
        constraints = [f"t >= {MIN_FRAMES}", f"t <= {MAX_FRAMES}", "2*t^2 - t >= 0"]
        number, frames = jax.export.symbolic_shape("b, t", constraints=constraints)
        return [(frame * frames, number)]
    rate = config.features.sample_rate
    lengths = [-(-round(each * rate) // frame) * frame for each in seconds or SECONDS]
    return [(length, number) for length in lengths for number in rows or ROWS]


def _is_open(config: ModelConfig) -> bool:
    """Returns whether the encoder can be traced for any length: attention over all frames."""
    encoder = config.encoder
    return not (encoder.attention_context or encoder.chunked_contexts or encoder.unified_contexts)


def _outputs(hypothesis: Hypothesis) -> dict[str, Any]:
    return {name: getattr(hypothesis, name) for name in OUTPUTS}


def _struct(shape: tuple, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def _shapes(leaves: dict[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
    return {name: _struct(leaf.shape, leaf.dtype) for name, leaf in leaves.items()}


def _description(
    recogniser: Recogniser, decoder: str, programs: Sequence[Program]
) -> dict[str, Any]:
    """Returns the contents of export.json, documented in docs/exporting.md."""
    config, tokenizer = recogniser.config, recogniser.tokenizer
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "tdt_jax": importlib.metadata.version("tdt_jax"),
        "jax": jax.__version__,
        "kind": "CTC" if decoder == "ctc" else config.kind,
        "sample_rate": config.features.sample_rate,
        "sample_multiple": config.samples_per_frame,
        "seconds_per_frame": config.seconds_per_frame,
        "durations": None if decoder == "ctc" else config.durations,
        "blank": config.blank,
        "vocabulary": tokenizer.pieces,
        "tags": sorted(tokenizer.tags),
        "outputs": OUTPUTS,
        "programs": [
            {key: value for key, value in program._asdict().items() if key != "exported"}
            for program in programs
        ],
        "model": dataclasses.asdict(config),
    }
