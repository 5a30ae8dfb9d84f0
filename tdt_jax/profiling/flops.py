"""Floating-point operations of a function's matrix products and convolutions, from its jaxpr."""

import math
from collections.abc import Callable, Iterator

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr


def product_flops(function: Callable, *arguments) -> int:
    """Returns the operations in the products of `function(*arguments)` (arrays or their shapes).

    A multiplication and an addition count as two. The body of a scan counts once per iteration, a
    conditional as its costliest branch, and a loop of unknown length as nothing.
    """
    return _flops(jax.make_jaxpr(function)(*arguments).jaxpr)


def _flops(jaxpr: Jaxpr) -> int:
    return sum(_equation_flops(equation) for equation in jaxpr.eqns)


def _equation_flops(equation) -> int:
    name = equation.primitive.name
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
        return 2 * math.prod(out) * math.prod(left[i] for i in contracted)
    if name == "conv_general_dilated":
        kernel, out = equation.invars[1].aval.shape, equation.outvars[0].aval.shape
        num_outputs = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
        return 2 * math.prod(out) * math.prod(kernel) // num_outputs
    if name == "while":
        return 0
    if name == "cond":
        return max(_flops(branch.jaxpr) for branch in equation.params["branches"])
    inner = sum(_flops(jaxpr) for jaxpr in inner_jaxprs(equation.params))
    return inner * equation.params["length"] if name == "scan" else inner


def inner_jaxprs(parameters: dict) -> Iterator[Jaxpr]:
    """Yields the jaxprs that an equation runs."""
    for value in parameters.values():
        if isinstance(value, ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, Jaxpr):
            yield value
