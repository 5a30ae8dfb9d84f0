"""The rule by which a turn is over."""

import itertools

import pytest

from tdt_jax.inference.end_of_turn import EndOfTurn


def test_silence_needed_shrinks_with_certainty_and_reach():
    rule = EndOfTurn(silence=1.0, shortest=0.2)
    assert rule.silence_needed(1.0, 1.0) == pytest.approx(0.2)
    assert rule.silence_needed(0.5, 1.0) == pytest.approx(0.6)
    assert rule.silence_needed(0.5, 0.5) == pytest.approx(0.8)
    for least in (rule.silence_needed(0.0, 1.0), rule.silence_needed(1.0, 0.0)):
        assert least == pytest.approx(1.0)
    values = [0.0, 0.3, 0.7, 1.0]
    for low, high in itertools.pairwise(values):
        assert rule.silence_needed(low, 0.5) > rule.silence_needed(high, 0.5)
        assert rule.silence_needed(0.5, low) > rule.silence_needed(0.5, high)


def test_a_turn_is_over_when_the_silence_has_passed():
    rule = EndOfTurn(silence=0.8, shortest=0.4)
    for frames in range(20):
        assert rule.is_over(frames * 0.08, 0.0, 1.0) == (frames >= 10)
        assert rule.is_over(frames * 0.08, 1.0, 1.0) == (frames >= 5)
    same = EndOfTurn(silence=0.4, shortest=0.4)
    assert same.silence_needed(0.1, 0.1) == same.silence_needed(0.9, 0.9) == 0.4


@pytest.mark.parametrize(
    ("silence", "shortest"),
    [(0.4, 0.5), (0.4, 0.0), (-1.0, -2.0), (float("inf"), 0.4), (float("nan"), 0.4)],
)
def test_lengths_that_are_refused(silence, shortest):
    with pytest.raises(ValueError, match=r"0 < shortest <= silence, got shortest .* and silence"):
        EndOfTurn(silence=silence, shortest=shortest)
