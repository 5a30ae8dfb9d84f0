"""The parts of a training step that operations belong to."""

# Parts of a step by what is in an operation's functions or scope; the first that fits.
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
    "loss, the rest": ("jit(_loss)", "transducer_loss", "_lattice_losses", "ctc"),
    "optimiser": ("update", "tree_norm", "train_step/norm"),
}


def part_of(operation) -> str:
    """Which of PARTS an operation belongs to."""
    text = f"{operation.stack} {operation.scope}"
    for name, marks in PARTS.items():
        if any(mark in text for mark in marks):
            return name
    return "elsewhere"
