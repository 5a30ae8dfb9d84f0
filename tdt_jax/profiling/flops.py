"""How many floating-point operations the products of a function take, counted in its jaxpr."""

import math

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr


def product_flops(function, *arguments) -> int:
    """Of the matrix products and convolutions in `function(*arguments)` (arrays or their shapes).

    A multiplication and an addition count as two. A scan counts its body as often as it runs, a
    conditional its costliest branch; a loop whose length is a value counts as nothing.
    """
    return _of(jax.make_jaxpr(function)(*arguments).jaxpr)


def _of(jaxpr: Jaxpr) -> int:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation) -> int:
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
        return max(_of(branch.jaxpr) for branch in equation.params["branches"])
    inner = sum(_of(jaxpr) for jaxpr in _inside(equation.params))
    return inner * equation.params["length"] if name == "scan" else inner


def _inside(parameters: dict) -> list[Jaxpr]:
    """The jaxprs that an equation runs, each once."""
    found = []
    for value in parameters.values():
        if isinstance(value, ClosedJaxpr):
            found.append(value.jaxpr)
        elif isinstance(value, Jaxpr):
            found.append(value)
    return found
