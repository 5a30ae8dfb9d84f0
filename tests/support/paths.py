"""Where the tests' files lie."""

from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
GOLDEN = TESTS / "golden"
RECORDINGS = TESTS / "data" / "recordings"
