"""What the benchmarks run on: named cases, shapes, and weights that are the same everywhere."""

import os
import re
import subprocess
import sys

import models
import numpy as np
import pytest
import run_config
from paths import ROOT

from tdt_jax.benchmarks import cases
from tdt_jax.benchmarks.cases import Case, Shape
from tdt_jax.runtime.pytree import named_leaves

TINY = Case("tiny", 2, 12, 4, 6, width=8)


def test_unknown_names_are_errors():
    assert cases.choose(["v2"], cases.CASES) == {"v2": cases.CASES["v2"]}
    with pytest.raises(ValueError, match="no case 'huge'; there are small, v2, v3, long"):
        cases.choose(["small", "huge"], cases.CASES)


def test_the_floor_is_the_products_of_every_node():
    """2 * 12 * 5 nodes with 7 + 5 logits of 8 products and 8 sums, four times."""
    assert TINY.num_logits == 2 * 12 * 5 * 12
    assert TINY.flops == 4 * 2 * 8 * 2 * 12 * 5 * 12


def test_the_joint_network_has_the_weights_of_the_inputs():
    inputs = cases.loss_inputs(TINY)
    joint = cases.make_joint(TINY, "float32", inputs)
    for name in ("frame_projection", "state_projection", "token_head", "duration_head"):
        np.testing.assert_array_equal(getattr(joint, name).kernel[...], inputs[name])


def test_a_random_model_has_the_parameters_of_its_names():
    config = models.config()
    for name, leaf in named_leaves(cases.random_model(config, "float32")).items():
        np.testing.assert_array_equal(leaf, cases.random_parameter(name, leaf.shape))


def test_random_weights_are_the_same_whenever_they_are_drawn():
    weights = cases.random_parameter("joint.token_head.kernel", (2, 2))
    np.testing.assert_allclose(weights, [[0.7427400, 0.1089081], [1.0260895, 0.0596862]], rtol=1e-6)


@pytest.mark.slow
def test_two_processes_give_the_same_weights():
    """Whatever the hashes of their strings are; and no two parameters are alike."""
    names = "encoder.blocks.attention.query.kernel", "joint.token_head.kernel"
    program = (
        "from tdt_jax.benchmarks.cases import random_parameter\n"
        f"print([random_parameter(name, (2, 3)).tolist() for name in {names}])"
    )
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed}
    command = [sys.executable, "-c", program]
    other = subprocess.run(command, env=environment, capture_output=True, text=True)
    here = [cases.random_parameter(name, (2, 3)).tolist() for name in names]
    assert other.stdout == f"{here}\n", other.stderr
    assert here[0] != here[1]


def test_a_shape_is_read():
    assert cases.parse_shape("30,160,8") == Shape(30.0, 160, 8)
    assert cases.parse_shape(None) is None
    for text in ("30,160", "30,160,0", "a,b,c"):
        with pytest.raises(ValueError, match=re.escape(repr(text))):
            cases.parse_shape(text)


def test_a_batch_is_split_among_devices():
    buckets = run_config.get_config().data.buckets
    assert cases.largest(buckets, 2) == Shape(8.96, 40, 2)
    with pytest.raises(ValueError, match="a batch of 4 cannot be split among 8 devices"):
        cases.largest(buckets, 8)
