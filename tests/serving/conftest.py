"""A server of a random model, in this process; what it decodes in batches needs no model."""

import contextlib
import dataclasses
import gc

import pytest
import stub
from clients import AUDIO, wait_for, wav_of
from fastapi.testclient import TestClient
from models import causal_config, make_recogniser

from tdt_jax.inference import transcription
from tdt_jax.serving.app import create_app
from tdt_jax.serving.engine import Engine
from tdt_jax.serving.metrics import Metrics
from tdt_jax.serving.settings import Settings


@pytest.fixture(autouse=True)
def no_model(monkeypatch):
    """Batches are decoded without a model; live streams compile nothing before they are used.

    So there is no garbage of compilation, which takes a moment to collect.
    """
    monkeypatch.setattr(gc, "collect", lambda: 0)
    monkeypatch.setattr(transcription, "decode_samples_on_mesh", stub.decode)
    monkeypatch.setattr("tdt_jax.inference.streams.Streams.warm_up", lambda self: None)


@pytest.fixture(scope="session")
def recogniser():
    config = causal_config()
    features = dataclasses.replace(config.features, normalize=(-8.0, 4.0))
    return make_recogniser(piece_seconds=2.56, encoder=config.encoder, features=features)


@pytest.fixture
def serving(recogniser):
    """Starts a server with settings; a context manager that gives a client."""

    @contextlib.contextmanager
    def start(recogniser=recogniser, **settings):
        settings = Settings(**{"streams": 2, "decoders": 1, **settings})
        engine = Engine(recogniser, settings, Metrics())
        host = {"host": "localhost:8000"}
        with TestClient(create_app(engine, settings), headers=host) as client:
            wait_for(lambda: client.get("/ready").status_code == 200)
            yield client

    return start


@pytest.fixture
def client(serving):
    with serving() as client:
        yield client


@pytest.fixture(scope="session")
def wav():
    """A recording as a file, 16-bit."""
    return wav_of(AUDIO[0])
