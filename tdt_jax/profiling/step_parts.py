"""The part of a training step that an operation belongs to, by the names in its origin."""

from tdt_jax.profiling.hlo import Operation

# Each part with substrings of its operations' stack or scope; the first part that fits counts.
PARTS = {
    "features": ("log_mel", "_features", "dither"),
    "augmentation": ("augment",),
    "subsampling": ("Subsampling",),
    "dropout": ("/dropout",),
    "attention": ("RelativeAttention",),
    "feed-forward": ("FeedForward",),
    "convolution": ("Convolution",),
    "rest of the blocks": ("Block.", "Encoder."),
    "predictor": ("Predictor", "LSTM"),
    "loss, recursion": ("recursion",),
    "loss, the rest": ("jit(_loss)", "transducer_loss", "ctc", "loss_and_metrics/Linear"),
    "optimiser": ("update", "tree_norm", "train_step/norm"),
}


def part_of(operation: Operation) -> str:
    """Returns which of PARTS an operation belongs to, or "elsewhere"."""
    text = f"{operation.stack} {operation.scope}"
    for part, substrings in PARTS.items():
        if any(substring in text for substring in substrings):
            return part
    return "elsewhere"
