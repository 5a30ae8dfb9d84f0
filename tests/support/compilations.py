"""How many programs XLA compiles."""

import jax

_compiled = []


def num_compilations(function, *args, **options):
    """How many programs named like `function` XLA compiles while it runs on the arguments."""
    name = f"jit({function.__name__})"
    before = _compiled.count(name)
    jax.block_until_ready(function(*args, **options))
    return _compiled.count(name) - before


def _listen(event, duration, **info):
    if event == "/jax/core/compile/backend_compile_duration":
        _compiled.append(info.get("fun_name"))


jax.monitoring.register_event_duration_secs_listener(_listen)
