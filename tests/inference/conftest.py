"""What the tests of this room share."""

import pytest
from models import make_recogniser


@pytest.fixture(scope="session")
def recogniser():
    """A small recogniser whose batches have two shapes: 1 x 2.56 s and 4 x 2.56 s."""
    return make_recogniser(piece_seconds=2.56)
