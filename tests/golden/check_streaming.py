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
    encoder = model.encoder
    is_unified = encoder.att_context_style == "chunked_limited_with_rc"
    can_stream = not is_unified and encoder.conv_context_size[1] == 0
    assert is_unified or encoder.att_context_size_all == CONTEXTS
    features, lengths = utterances()
    for context in [[-1, -1, -1], *map(list, UNIFIED)] if is_unified else CONTEXTS:
        encoder.set_default_att_context_size(context)
        check = Check(path, None if context[0] < 0 else context)
        frames, num_frames = make_streaming.nemo_encode(model, features, lengths)
        check.frames("frames", "NeMo, whole", [frames[row, : num_frames[row]] for row in range(2)])
        hypotheses = model.decoding.rnnt_decoder_predictions_tensor(
            frames.transpose(1, 2), num_frames, return_hypotheses=True
        )
        check.labels([(each.y_sequence, each.timestamp) for each in hypotheses])
        if can_stream:
            streamed = [
                make_streaming.nemo_stream(model, features[row, : lengths[row]], context[1])[0]
                for row in range(20)
            ]
            check.frames("frames", "NeMo, streamed", streamed[:2])
            check.labels([make_streaming.nemo_decode(model, x[None]) for x in streamed])


def check_transformers(path: Path, model) -> None:
    features, lengths = utterances()
    mask = torch.tensor(np.arange(features.shape[1])[None] < lengths[:, None])
    x = torch.tensor(features)
    for context in CONTEXTS:
        right, check = context[1], Check(path, context)
        frames = make_streaming.transformers_frames(model, x[:2], right, mask=mask[:2])
        check.frames("projected", "transformers, whole", frames)
        check.labels(
            [
                make_streaming.transformers_decode(model, x[row : row + 1, :length], right)
                for row, length in enumerate(lengths)
            ]
        )
        size = 8 * (right + 1)
        first = x[:1, : (x.shape[1] + 7) // size * size - 7]  # whole chunks
        streamed = make_streaming.transformers_stream(model, first, right)
        check.frames("projected", "transformers, streamed", streamed)


class Check:
    """Compares with what tdt_jax computed in a context; ends the program where they differ."""

    def __init__(self, path: Path, context: list[int] | None):
        self.context = "_".join(map(str, context)) if context else "whole"
        self.expected, self.kind = np.load(path.with_suffix(".npz")), path.stem

    def __getitem__(self, name: str) -> np.ndarray:
        return self.expected[f"{name}_{self.context}"]

    def frames(self, name: str, title: str, computed) -> None:
        errors = [
            np.max(np.abs(theirs.numpy() - ours[: len(theirs)])) / np.max(ours)
            for theirs, ours in zip(computed, self[name], strict=False)
        ]
        print(f"{self.kind} {self.context}: {title}, frames {max(errors):.1e}", flush=True)
        if not max(errors) < 5e-6:
            sys.exit("they differ")

    def labels(self, decoded) -> None:
        alike = compared = 0
        for row, (labels, times) in enumerate(decoded):
            labels, times = (np.array([int(each) for each in part]) for part in (labels, times))
            if "durations" in KINDS[self.kind][0] and len(times) and np.bincount(times).max() >= 10:
                continue  # NeMo then moves a frame too far
            count = self["num_labels"][row]
            compared += 1
            alike += np.array_equal(labels, self["labels"][row, :count]) and np.array_equal(
                times, self["times"][row, :count]
            )
        print(f"  {alike} of {compared} utterances alike in labels and times", flush=True)
        if alike != compared:
            sys.exit("they differ")


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    check(Path(sys.argv[1]))
