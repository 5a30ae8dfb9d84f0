"""Evaluations as a table in Markdown."""

from evaluations import CLEAN, NOISY, evaluated

from tdt_jax.inference.evaluation_table import markdown


def test_markdown():
    named = [("clean|set", evaluated(CLEAN)), ("noisy", evaluated(NOISY, failed=["x", "y"]))]
    lines = markdown(named).splitlines()
    assert lines[0] == (
        "| set | WER % | 95 % interval | sub | del | ins | words | CER % "
        "| utterances | hours | steps/s | RTFx |"
    )
    assert lines[2].startswith("| clean\\|set | 16.67 | 0.00 to 33.33 | 1 | 0 | 0 | 6 |")
    assert "| 3 (2 not read) |" in lines[3] and lines[3].endswith(" | 0.00 | 3.00 | 1.5 |")
    assert lines[4].startswith("| mean of the sets | 50.00 |  |")
    assert lines[5].startswith("| all words | 50.00 | ")
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert len(markdown(named[:1]).splitlines()) == 3
    nothing = markdown([("gone", evaluated([], failed=["a"]))]).splitlines()[2]
    assert nothing.startswith("| gone |  |  |  |") and "| 0 (1 not read) |" in nothing
