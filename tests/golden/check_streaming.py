"""Checks that NeMo and transformers load streaming models that tdt_jax writes, and run them alike.

    PYTHONPATH=tests/support python tests/golden/write_streaming.py /tmp/streaming
    python tests/golden/check_streaming.py /tmp/streaming    # where NeMo is installed
    python tests/golden/check_streaming.py /tmp/streaming    # where transformers is installed

They encode the same utterances, whole and chunk by chunk, and decode them.
"""

import sys
from pathlib import Path

import make_streaming
import numpy as np
import torch
from streaming_cases import CONTEXTS, KINDS, UNIFIED, utterances


def check(folder: Path) -> None:
    try:
        from nemo.collections.asr.models import ASRModel
    except ImportError:
        import transformers

        transformers.logging.set_verbosity_error()
        for path in sorted(each for each in folder.iterdir() if each.is_dir()):
            config = transformers.AutoConfig.from_pretrained(path)
            model, report = getattr(transformers, config.architectures[0]).from_pretrained(
                path, output_loading_info=True
            )
            if any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")):
                sys.exit(f"{path}: {report}")
            check_transformers(path, model.eval())
            processor = transformers.AutoProcessor.from_pretrained(path)
            print(f"  {type(model).__name__}, {type(processor).__name__}")
            samples = np.random.default_rng(5).normal(size=8000).astype(np.float32) * 0.1
            inputs = processor(samples, sampling_rate=16000)
            out = model.generate(**inputs)
            print("  transcribed:", processor.batch_decode(out.sequences))
        return
    for path in sorted(folder.glob("*.nemo")):
        check_nemo(path, ASRModel.restore_from(str(path), map_location="cpu").eval())


def check_nemo(path: Path, model) -> None:
    expected, encoder = np.load(path.with_suffix(".npz")), model.encoder
    is_unified = encoder.att_context_style == "chunked_limited_with_rc"
    can_stream = not is_unified and encoder.conv_context_size[1] == 0
    contexts = [[-1, -1, -1], *map(list, UNIFIED)] if is_unified else CONTEXTS
    assert is_unified or encoder.att_context_size_all == CONTEXTS
    for context in contexts:
        encoder.set_default_att_context_size(context)
        name = "whole" if context[0] < 0 else "_".join(map(str, context))
        runs = {"whole": lambda x, _: make_streaming.nemo_encode(model, x[None], [len(x)])[0]}
        if can_stream:
            runs["streamed"] = lambda x, right: make_streaming.nemo_stream(model, x, right)
        for run, encode in runs.items():
            compare(
                f"NeMo {path.stem} {name} {run}", expected, name, f"frames_{name}",
                lambda x, encode=encode, right=context[1]: encode(x, right),
                lambda x, frames: make_streaming.nemo_decode(model, frames)[:2],
            )  # fmt: skip


def check_transformers(path: Path, model) -> None:
    expected = np.load(path.with_suffix(".npz"))
    for context in CONTEXTS:
        right, name = context[1], "_".join(map(str, context))
        size = 8 * (right + 1)
        for run, stream in (("whole", False), ("streamed", True)):

            def encode(x, stream=stream, right=right, size=size):
                x = torch.tensor(x[None])
                if stream:  # as its chunks are whole, those of the first frames
                    x = x[:, : (x.shape[1] + 7) // size * size - 7]
                    return make_streaming.transformers_stream(model, x, right)
                return make_streaming.transformers_frames(model, x, right)

            def decode(x, _, right=right):
                return make_streaming.transformers_decode(model, torch.tensor(x[None]), right)

            compare(
                f"transformers {path.stem} {name} {run}", expected, name, f"projected_{name}",
                encode, None if stream else decode,
            )  # fmt: skip


def compare(title, expected, name, frames, encode, decode) -> None:
    """Compares frames of two utterances, and the labels and times of all."""
    features, lengths = utterances()
    worst, alike, compared = 0.0, 0, 0
    has_durations = "durations" in KINDS[title.split()[1]][0]
    with torch.no_grad():
        for row, (x, length) in enumerate(zip(features, lengths, strict=True)):
            if row >= 2 and decode is None:
                break
            computed = encode(x[:length])
            if row < 2:
                theirs, ours = computed[0].numpy(), expected[frames][row]
                worst = max(worst, np.max(np.abs(theirs - ours[: len(theirs)])) / np.max(ours))
            if decode is None:
                continue
            labels, times = decode(x[:length], computed)
            count = expected[f"num_labels_{name}"][row]
            ours = (expected[f"{part}_{name}"][row, :count] for part in ("labels", "times"))
            if has_durations and len(times) and np.bincount(times).max() >= 10:
                continue  # NeMo then moves a frame too far
            compared += 1
            alike += all(map(np.array_equal, (labels, times), ours))
    emitted = int(np.sum(expected[f"num_labels_{name}"]))
    print(f"{title}: frames {worst:.1e}; {alike} of {compared} alike, {emitted} labels in all")
    if worst > 5e-6 or alike != compared:
        sys.exit("they differ")


if __name__ == "__main__":
    torch.set_num_threads(1)
    check(Path(sys.argv[1]))
