"""Serves a model with Ray Serve: the application of `tdt-jax serve` in several replicas.

    pip install 'tdt-jax[serve,ray]'
    python examples/ray_serve.py runs/quickstart_streaming --replicas 2 8 --gpus 1

Each replica has accelerators and a copy of the model for itself. Ray's proxy sends a request to a
replica with few of them; a live stream stays at the replica where it began. There are as many
replicas as the load needs; one that fails is replaced, and its live streams end. Limits, such as
the number of live streams, are those of each replica.
"""

import argparse
import asyncio
import sys
from typing import Any

from fastapi import FastAPI
from ray import serve

import tdt_jax as tdt
from tdt_jax.runtime import process
from tdt_jax.serving.app import create_app
from tdt_jax.serving.engine import Engine
from tdt_jax.serving.metrics import Metrics
from tdt_jax.serving.settings import Settings

COMPILING = 900.0  # seconds in which a replica must be ready


def application(
    model: str,
    settings: Settings,
    *,
    replicas: tuple[int, int] = (1, 4),
    requests: int = 8,
    **resources: Any,
) -> serve.Application:
    """Returns what `ray.serve.run` runs.

    Args:
      model: a checkpoint that every machine can read.
      settings: limits of a replica; its address, keys and origins do not count.
      replicas: the fewest and the most.
      requests: and live streams that a replica is to have at a time; with more, there will be more
        replicas.
      resources: of a replica, as of `ray.remote`, such as num_gpus=1.
    """

    def make_app() -> FastAPI:
        process.set_up()
        return create_app(Engine(tdt.load(model), settings, Metrics()), settings)

    # With uvloop, the processes that decode uploads would be forked, beside JAX's threads.
    resources.setdefault("runtime_env", {}).setdefault("env_vars", {})["RAY_USE_UVLOOP"] = "0"

    @serve.deployment(
        name=settings.name,
        autoscaling_config={
            "min_replicas": replicas[0],
            "max_replicas": replicas[1],
            "target_ongoing_requests": requests,
        },
        max_ongoing_requests=settings.max_requests + settings.streams,
        graceful_shutdown_timeout_s=settings.grace,
        health_check_timeout_s=COMPILING,
        ray_actor_options=resources,
    )
    @serve.ingress(make_app)
    class Replica:
        async def check_health(self) -> None:
            """Waits until all is compiled; raises RuntimeError if the device has failed."""
            engine = self.app.state.service.engine
            while not engine.is_ready and not engine.failure:
                await asyncio.sleep(0.1)
            if engine.failure:
                raise RuntimeError(f"the device has failed: {engine.failure}")

    return Replica.bind()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", help="a run, a .nemo archive, a Hugging Face folder or repository")
    parser.add_argument("--replicas", type=int, nargs=2, default=(1, 4), metavar=("LEAST", "MOST"))
    parser.add_argument("--requests", type=int, default=8, help="that a replica is to have [8]")
    parser.add_argument("--gpus", type=float, default=0, help="of a replica [0]")
    parser.add_argument("--cpus", type=float, default=2, help="of a replica [2]")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at [%(default)s]")
    parser.add_argument("--port", type=int, default=8000, help="port to listen at [8000]")
    options = parser.parse_args(arguments)
    serve.start(http_options={"host": options.host, "port": options.port})
    app = application(
        options.model,
        Settings(),
        replicas=tuple(options.replicas),
        requests=options.requests,
        num_gpus=options.gpus,
        num_cpus=options.cpus,
    )
    serve.run(app, blocking=True)


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:  # a bad argument or file, which it names
        sys.exit(f"error: {error}")
