"""Words on a terminal: lines up to each pause, and what is pending."""

import re

import pytest

from tdt_jax.cli import terminal
from tdt_jax.inference.stream_words import StreamedWord
from tdt_jax.orthography import width


class Script:
    """A stream that decodes what it is pushed: (words, pending, seconds); the rest at its end."""

    latency = 0.16

    def __init__(self, recogniser, rest=()):
        self.pending, self.seconds, self.rest = "", 0.0, rest

    def warm_up(self):
        pass

    def push(self, step):
        words, self.pending, self.seconds = step
        return [
            StreamedWord(text, start, end, 1.0, 1.0, text[0] != "+") for text, start, end in words
        ]

    def finish(self):
        return self.push((self.rest, "", self.seconds))


def written(steps, monkeypatch, **options):
    monkeypatch.setattr(terminal, "Stream", Script)
    parts = []
    terminal.write_words(None, steps, parts.append, **options)
    return parts


STEPS = [
    ([], "one", 1.0),
    ([("one", 0.5, 0.9)], " tw", 2.0),
    ([], " tw", 2.1),
    ([("two", 1.5, 1.8)], "", 3.0),  # and a pause
    ([("three", 3.2, 3.5), ("four", 5.0, 5.2)], " five", 6.0),
]


def test_words_are_written_as_they_come_a_line_up_to_each_pause(monkeypatch):
    parts = written(STEPS, monkeypatch, rest=[("five", 5.3, 5.6)])
    assert "".join(parts) == "one two\nthree\nfour five\n"
    assert parts[:3] == ["one", " two", "\n"]
    assert written([], monkeypatch) == []


def test_a_word_that_goes_on_has_no_space(monkeypatch):
    steps = [([("ab", 0.5, 2.5)], "c", 3.0), ([("+cd", 2.5, 3.0), ("e", 3.1, 3.2)], "", 3.5)]
    assert "".join(written(steps, monkeypatch)).replace("+", "") == "abcd e\n"


def test_lines_of_japanese_are_as_wide_as_they_look(monkeypatch):
    texts = ["+東京", "+で", "+Para", "+を", "+使う。"] * 4
    words = [(text, 0.3 * i, 0.3 * i + 0.2) for i, text in enumerate(texts)]
    parts = written([(words, "東京で", 6.0)], monkeypatch, columns=12, rest=[("+は", 8.0, 8.2)])
    lines = [line.replace("+", "") for line in screen(parts)]
    assert "".join(lines) == "".join(texts + ["は"]).replace("+", "")
    assert max(map(width, lines)) < 12 + 2 and lines[-2] == "は"  # a pause is before it
    assert not any(line[:1] == "。" for line in lines)


def test_a_terminal_shows_what_is_pending(monkeypatch):
    parts = written(STEPS, monkeypatch, columns=80, rest=[("five", 5.3, 5.6)])
    assert screen(parts) == ["one two", "three", "four five", ""]
    assert [screen(parts[:i])[-1] for i in (1, 4)] == ["one", "one tw"]
    assert "".join(parts).count("tw") == 2  # not again where nothing has changed


def test_lines_do_not_leave_the_terminal(monkeypatch):
    words = [(f"word{i}", 0.3 * i, 0.3 * i + 0.2) for i in range(20)]
    parts = written(
        [(words[:10], " unending", 3.0), (words[10:], "", 6.0)], monkeypatch, columns=20
    )
    lines = screen(parts)
    assert max(map(len, lines)) < 20
    assert " ".join(lines).split() == [text for text, _, _ in words]


def screen(parts):
    """The lines that a terminal shows."""
    lines = [""]
    for part in "".join(parts).replace("\033[K", "\0").split("\n"):
        shown = part.rsplit("\r", 1)[-1]
        lines[-1] = shown.replace("\0", "")
        lines.append("")
    return lines[:-1]


def rows_of(parts):
    """The rows of a terminal that knows ANSI's sequences; what is grey is in capitals."""
    rows, row, column, is_grey = [""], 0, 0, False
    for each in re.findall(r"\033\[\d*[A-Zm]|.|\n", "".join(parts)):
        if each == "\n":
            row, column = row + 1, 0
            rows += [""] * (row == len(rows))
        elif each == "\r":
            column = 0
        elif each == "\033[A":
            row -= 1
        elif each in ("\033[K", "\033[J"):
            rows[row] = rows[row][:column]
            rows = rows[: row + 1] if each == "\033[J" else rows
        elif each[0] == "\033" and each[-1] == "C":
            column += int(each[2:-1])
        elif each[0] == "\033":
            is_grey = each == "\033[90m"
        else:
            shown = each.upper() if is_grey else each
            rows[row] = rows[row].ljust(column)[:column] + shown + rows[row][column + 1 :]
            column += 1
    return rows


def test_colors_show_what_may_change_and_the_latency(monkeypatch):
    """The latency stands below the words, and is gone at the end."""
    monkeypatch.setattr(terminal.time, "perf_counter", iter(range(99)).__next__)
    options = dict(columns=80, ansi=True, rest=[("five", 5.3, 5.6)])
    parts = written(STEPS, monkeypatch, **options)
    status = "LATENCY 0.16 S + 1.000 S OF COMPUTATION"
    seen = [rows_of(parts[:i]) for i in range(len(parts) + 1)]
    for rows in (["ONE", status], ["one TW", status], ["one two", "three", "four FIVE", status]):
        assert rows in seen
    assert seen[-1] == ["one two", "three", "four five", ""]
    assert "\033" not in "".join(written(STEPS, monkeypatch, ansi=True))
    narrow = written(STEPS, monkeypatch, columns=12, ansi=True)
    assert max(len(row) for i in range(len(narrow)) for row in rows_of(narrow[:i])) < 12


def test_an_interrupt_ends_the_stream(monkeypatch):
    """The words until then are written, and the rest of the stream."""

    def interrupted():
        yield STEPS[0]
        yield STEPS[1]
        raise KeyboardInterrupt

    parts = written(interrupted(), monkeypatch, rest=[("two", 1.5, 1.8)])
    assert "".join(parts) == "one two\n"


def test_other_errors_end_the_stream_and_are_raised(monkeypatch):
    """But for a reader that is gone, to whom nothing is written any more."""
    for error, text in ((OSError("unplugged"), "one two\n"), (BrokenPipeError(), "one")):

        def broken(error=error):
            yield ([("one", 0.5, 0.9)], "", 1.0)
            raise error

        monkeypatch.setattr(terminal, "Stream", Script)
        parts = []
        with pytest.raises(type(error)):
            terminal.write_words(None, broken(), parts.append, rest=[("two", 1.5, 1.8)])
        assert "".join(parts) == text
