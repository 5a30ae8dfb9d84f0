"""The tables name every parameter of a model, and the tensors of published checkpoints."""

import dataclasses

import models
import numpy as np
import pytest

from tdt_jax import presets
from tdt_jax.checkpoints.parakeet import convert, tables
from tdt_jax.config import PromptConfig
from tdt_jax.models.transducer import abstract_model
from tdt_jax.runtime.pytree import named_leaves


@pytest.mark.parametrize(
    ("kind", "norm", "use_bias"),
    [
        ("TDT", "affine", True),
        ("RNN-T", "layer_norm", False),
        ("CTC", "affine", False),
        *(
            pytest.param(kind, norm, use_bias, marks=pytest.mark.slow)
            for kind in ("TDT", "RNN-T", "CTC")
            for norm in ("affine", "layer_norm")
            for use_bias in (True, False)
        ),
    ],
)
def test_tables_name_every_parameter_once(kind, norm, use_bias):
    encoder = models.encoder_config(use_bias=use_bias, convolution_norm=norm)
    changes = dict(durations=None) if kind != "TDT" else {}
    if kind == "CTC":
        changes |= dict(predictor=None, joint=None, ctc=True)
    config = models.config(encoder=encoder, **changes)
    assert config.kind == kind
    if kind == "RNN-T":
        config = dataclasses.replace(config, prompt=PromptConfig(4, 8, 0))
    named = [row.parameter for row in tables.rows(config)]
    for affine, _ in tables.batch_norms(config):
        named += [f"{affine}.scale", f"{affine}.bias"]
    assert sorted(named) == sorted(named_leaves(abstract_model(config)))


def test_the_published_model_has_the_published_tensors():
    """parakeet-tdt-0.6b-v3: 723 tensors, 627,057,310 numbers in all."""
    config = presets.PARAKEET_TDT_0_6B_V3
    shapes = {name: leaf.shape for name, leaf in named_leaves(abstract_model(config)).items()}
    expected = convert.tensor_shapes(config, shapes)
    tracked = config.encoder.num_layers  # num_batches_tracked
    assert len(expected) + tracked == 723
    assert sum(int(np.prod(shape)) for shape in expected.values()) + tracked == 627_057_310
