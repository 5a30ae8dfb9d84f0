"""transformers beside this package: models with the same weights, and the same measurements.

With parity.py the only file that imports torch and transformers, always within functions: neither
is a dependency.
"""

# pyright: reportMissingImports=false

import dataclasses
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from tdt_jax.benchmarks import random_decoder
from tdt_jax.benchmarks.cases import DURATIONS, SIGMA, Case, loss_inputs, random_features
from tdt_jax.benchmarks.timing import Measurement, median_seconds, peak_since, reset_peak
from tdt_jax.checkpoints.parakeet import convert, tables
from tdt_jax.checkpoints.parakeet.hugging_face_config import model_config
from tdt_jax.config import ModelConfig


def require_peers() -> None:
    """Raises ValueError unless torch and transformers are installed."""
    names = "torch", "transformers"
    if missing := [name for name in names if importlib.util.find_spec(name) is None]:
        raise ValueError(f"--peers needs {' and '.join(missing)} (pip install) beside tdt_jax")


def measure_peer_loss(case: Case, *, repeats: int) -> tuple[Measurement, list[float]]:
    """Returns the cost of transformers' tdt_loss and its gradients on the CPU, and the losses.

    It is behind the same joint network in torch; everything is float32.
    """
    import torch
    from transformers.loss.loss_tdt import tdt_loss

    arrays = {name: torch.from_numpy(array) for name, array in loss_inputs(case).items()}
    labels = arrays.pop("labels").long()
    for array in arrays.values():
        array.requires_grad_()
    head = torch.cat([arrays["token_head"], arrays["duration_head"]], dim=1).detach()
    head.requires_grad_()
    lengths = torch.full((case.batch,), case.frames), torch.full((case.batch,), case.labels)

    def step():
        frames = (arrays["frames"] @ arrays["frame_projection"])[:, :, None]
        states = (arrays["states"] @ arrays["state_projection"])[:, None]
        logits = torch.relu(frames + states) @ head
        losses = tdt_loss(
            logits[..., : case.vocab + 1],
            logits[..., case.vocab + 1 :],
            labels,
            *lengths,
            blank_token_id=case.vocab,
            durations=list(DURATIONS),
            sigma=SIGMA,
            reduction="none",
        )
        losses.sum().backward()
        for array in (*arrays.values(), head):
            array.grad = None
        return losses.detach()

    measurement, losses = _measure(step, repeats)
    return measurement, losses.double().tolist()


def measure_peer_encoder(
    config: ModelConfig, seconds: float, batch: int, *, repeats: int
) -> Measurement:
    """Returns the cost of transformers' encoder in float32 on the CPU, on the same features."""
    import torch

    encoder = make_peer(config).encoder
    features, _ = random_features(config, seconds, batch)
    x, mask = torch.from_numpy(features), torch.ones(features.shape[:2], dtype=torch.bool)
    with torch.no_grad():
        return _measure(lambda: encoder(x, mask), repeats)[0]


def measure_peer_chunk(
    config: ModelConfig, context: tuple[int, int], batch: int, repeats: int
) -> Measurement:
    """Returns the cost of a chunk of transformers' streaming encoder in float32 on the CPU.

    It is that with the fastest number of threads.
    """
    import os

    import torch
    from transformers import NemotronAsrStreamingEncoder, NemotronAsrStreamingEncoderConfig

    (left, right), ours = context, config.encoder
    theirs = NemotronAsrStreamingEncoderConfig(
        hidden_size=ours.width,
        num_hidden_layers=ours.num_layers,
        num_attention_heads=ours.num_heads,
        intermediate_size=ours.feed_forward_factor * ours.width,
        num_mel_bins=config.features.num_mels,
        subsampling_conv_channels=ours.subsampling_channels,
        conv_kernel_size=ours.kernel_size,
        attention_bias=ours.use_bias,
        convolution_bias=ours.use_bias,
        scale_input=ours.scale_input,
        sliding_window=left + 1,
    )
    encoder = NemotronAsrStreamingEncoder(theirs).eval()
    generator = torch.Generator().manual_seed(0)
    shape = batch, 8 * (right + 1), config.features.num_mels
    features = torch.randn(shape, generator=generator)

    def measure(num_threads):
        torch.set_num_threads(num_threads)
        first = features[:, : 8 * right + 1]
        out = encoder(first, use_cache=True, num_lookahead_tokens=right)

        def run():
            nonlocal out
            caches = dict(cache=out.cache, padding_cache=out.padding_cache)
            out = encoder(features, use_cache=True, num_lookahead_tokens=right, **caches)

        for _ in range(-(-left // (right + 1))):
            run()
        return _measure(run, repeats)[0]

    with torch.no_grad():
        counts = range(1, (os.cpu_count() or 1) + 1)
        return min(map(measure, counts), key=lambda cost: cost.seconds)


def measure_peer_decoder(
    config: ModelConfig, blank_bias: float, batch: int, num_frames: int, *, repeats: int
) -> tuple[Measurement, list[tuple[np.ndarray, ...]]]:
    """Returns the cost of generate() in float32 on the CPU, without the encoder, and its labels.

    Labels, times and durations are a tuple for each utterance.
    """
    import torch

    frames = torch.from_numpy(random_decoder.make_frames(config, batch, num_frames))
    generate = generate_function(make_decoder_peer(config, blank_bias), frames, config)
    with torch.no_grad():
        measurement, out = _measure(generate, repeats)
    rows = zip(out.sequences[:, 1:].numpy(), out.durations[:, 1:].numpy(), strict=True)
    return measurement, [cut(*row, config.blank, num_frames) for row in rows]


def _measure(run: Callable[[], Any], repeats: int) -> tuple[Measurement, Any]:
    """Returns the cost of a function of torch's, and its last result."""
    import torch
    import transformers

    before = reset_peak()
    seconds, result = median_seconds(run, repeats)
    device = (
        f"transformers {transformers.__version__}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads"
    )
    return Measurement(seconds, 0.0, None, peak_since(before), device), result


def make_peer(config: ModelConfig) -> Any:
    """Returns a transformers model of the same sizes, with weights that make every part matter."""
    import torch
    import transformers

    fields = model_config(dataclasses.replace(config, ctc=False))
    kind = fields["architectures"][0]
    cls = getattr(transformers, kind.replace("For", "") + "Config")
    fields.pop("dtype")
    peer = getattr(transformers, kind)(cls(**fields)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in peer.state_dict().items():
            if not tensor.is_floating_point():
                continue
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2, generator=generator)
            elif "norm" in name and name.endswith("weight"):
                tensor.uniform_(0.8, 1.2, generator=generator)
            elif tensor.ndim > 1:
                tensor.normal_(0, np.prod(tensor.shape[1:]) ** -0.5, generator=generator)
            else:
                tensor.normal_(0, 0.1, generator=generator)
        peer.decoder.embedding.weight[config.blank] = 0
    return peer


def make_decoder_peer(config: ModelConfig, blank_bias: float) -> Any:
    """Returns a transformers model with the decoder of `random_decoder.make_model`."""
    import torch

    peer, model = make_peer(config), random_decoder.make_model(config, blank_bias)
    tensors = convert.disassemble(model, tensor_name=tables.hugging_face_name)
    decoder = {
        name: torch.from_numpy(array)
        for name, array in tensors.items()
        if name.startswith(("decoder.", "joint.", "encoder_projector."))
    }
    peer.load_state_dict({**peer.state_dict(), **decoder})
    return peer


def generate_function(peer: Any, frames: np.ndarray, config: ModelConfig) -> Callable[[], Any]:
    """Returns a function that runs the peer's generate() on frames [B, T, D], without its encoder.

    It projects the frames each time, as `greedy_decode` does.
    """
    import torch
    from transformers.models.parakeet.modeling_parakeet import ParakeetEncoderModelOutput

    batch, num_frames = frames.shape[:2]
    mask = torch.ones(batch, num_frames, dtype=torch.bool)

    def encoded(**_):
        return ParakeetEncoderModelOutput(
            last_hidden_state=frames,
            pooler_output=peer.encoder_projector(frames),
            attention_mask=mask,
        )

    peer.get_audio_features = encoded
    first = config.blank + 1
    durations = list(range(first, first + len(config.durations or ())))
    options = dict(
        input_features=torch.zeros(batch, 8 * num_frames, config.features.num_mels),
        attention_mask=torch.ones(batch, 8 * num_frames, dtype=torch.bool),
        decoder_start_token_id=config.blank,
        max_new_tokens=config.max_symbols * num_frames,
        **({"suppress_tokens": durations} if durations else {}),
    )
    return lambda: peer.generate(**options)


def cut(
    tokens: np.ndarray, durations: np.ndarray, blank: int, num_frames: int
) -> tuple[np.ndarray, ...]:
    """Returns labels, times and durations of an utterance's steps [S] up to its last frame.

    generate() goes on with rows that have ended until the last has.
    """
    tokens = tokens[: len(durations)]
    times = np.cumsum(durations) - durations
    emitted = (tokens != blank) & (times < num_frames)
    return tokens[emitted], times[emitted], durations[emitted]
