"""Listening: lines of words, on a terminal or not."""

from models import make_recogniser, noise

from tdt_jax.cli import listen
from tdt_jax.inference.streaming import Stream, StreamedWord
from tdt_jax.orthography import width


class Script:
    """A stream that hears what it is pushed: (words, pending, seconds); the rest at its end."""

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
    monkeypatch.setattr(listen, "Stream", Script)
    parts = []
    listen.listen(None, steps, parts.append, **options)
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


def test_an_interrupt_ends_the_stream():
    """What was heard until then is written; the streams agree."""
    recogniser, samples = make_recogniser(), noise(2.0)

    def interrupted():
        yield samples
        raise KeyboardInterrupt

    options, parts = dict(chunk=0.4, left=0.4, right=0.4), []
    listen.listen(recogniser, interrupted(), parts.append, **options)
    stream = Stream(recogniser, **options)
    stream.push(samples)
    stream.finish()
    assert "".join(parts).split() == stream.text.split() and stream.text
