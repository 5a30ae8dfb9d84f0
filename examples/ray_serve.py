"""Serve a model with Ray Serve: the application of `tdt-jax serve`, in several replicas.

    pip install 'tdt-jax[serve,ray]'
    RAY_SERVE_MODEL=runs/quickstart_streaming serve run ray_serve:app

Each replica has the accelerators of `RESOURCES` for itself, and its own copy of the model. Ray's
proxy sends requests to the replica with the fewest; a live stream stays at the one where it began.
A replica that fails is replaced, and its live streams end. Limits count for each replica.
"""

import asyncio
import os

from fastapi import FastAPI
from ray import serve

import tdt_jax as tdt
from tdt_jax.serving.app import create_app
from tdt_jax.serving.engine import Engine
from tdt_jax.serving.metrics import Metrics
from tdt_jax.serving.settings import Settings

RESOURCES = {"num_cpus": 2}  # of a replica, such as {"num_gpus": 1} or {"resources": {"TPU": 4}}
SETTINGS = Settings(name="tdt-jax", streams=16, max_requests=64)
COMPILING = 600.0  # seconds in which a replica must be ready


def make_app() -> FastAPI:
    """Returns the application of a replica; it compiles the model's programs when it starts."""
    recogniser = tdt.load(os.environ["RAY_SERVE_MODEL"])
    return create_app(Engine(recogniser, SETTINGS, Metrics()), SETTINGS)


@serve.deployment(
    autoscaling_config={"min_replicas": 1, "max_replicas": 4, "target_ongoing_requests": 8},
    max_ongoing_requests=SETTINGS.max_requests + SETTINGS.streams,
    graceful_shutdown_timeout_s=SETTINGS.grace,
    health_check_timeout_s=COMPILING,
    ray_actor_options={
        **RESOURCES,
        # Processes decode uploads; with uvloop they would start by a fork that breaks JAX's threads.
        "runtime_env": {
            "env_vars": {
                "RAY_USE_UVLOOP": "0",
                "RAY_SERVE_MODEL": os.environ.get("RAY_SERVE_MODEL", ""),
            }
        },
    },
)
@serve.ingress(make_app)
class Transcription:
    """A replica."""

    async def check_health(self) -> None:
        """Waits until the replica is ready; raises RuntimeError if its device has failed."""
        engine = self.app.state.service.engine
        while not engine.is_ready and not engine.failure:
            await asyncio.sleep(0.1)
        if engine.failure:
            raise RuntimeError(f"the device has failed: {engine.failure}")


app = Transcription.bind()
