"""A page on which the worst pairs of text and audio are listened to; one file, nothing to fetch."""

import base64
import html
from collections.abc import Sequence
from typing import NamedTuple

from tdt_jax.audio.encoded import flac
from tdt_jax.audio.errors import AudioError
from tdt_jax.audio.reading import as_samples
from tdt_jax.data.utterance import StoredUtterance
from tdt_jax.inference.metrics import aligned_words, is_right

STYLE = """
:root { color-scheme: light dark; --line: #8884; --wrong: #d33; --quiet: #888; }
body { font: 16px/1.45 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.3rem } p.note { color: var(--quiet) }
article { border-top: 1px solid var(--line); padding: .9rem 0 }
header { display: flex; flex-wrap: wrap; gap: .3rem 1rem; color: var(--quiet); font-size: .85rem }
header b { color: inherit; font-variant-numeric: tabular-nums }
header span { word-break: break-all }
dl { display: grid; grid-template-columns: 4rem 1fr; margin: .4rem 0; gap: .1rem .5rem }
dt { color: var(--quiet) } dd { margin: 0; overflow-wrap: anywhere }
mark { background: none; color: var(--wrong); font-weight: 600 }
audio { width: 100%; height: 2.2rem }
"""


class Pair(NamedTuple):
    """A text, its audio, and what a model makes of them."""

    item: StoredUtterance
    loss: float  # per label, nats
    heard: str  # what the model transcribes


def page(pairs: Sequence[Pair], median: float, sample_rate: int, longest: float) -> str:
    """Returns the HTML of a page with the audio of each pair, up to `longest` seconds of it.

    Args:
      pairs: the worst first.
      median: of the loss per label of all pairs.
      sample_rate: in Hz.
    """
    articles = "\n".join(_article(pair, sample_rate, longest) for pair in pairs)
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Pairs of text and audio that fit worst</title>
<style>{STYLE}</style>
<h1>The {len(pairs)} pairs of text and audio that fit worst</h1>
<p class="note">By the model's loss per label; half of all pairs have less than {median:.2f}.
Words that the model hears otherwise are marked.</p>
{articles}
</html>
"""


def _article(pair: Pair, sample_rate: int, longest: float) -> str:
    item, words = pair.item, aligned_words(pair.item.text, pair.heard)
    text = _marked([(reference, is_right(reference, heard)) for reference, heard in words])
    heard = _marked([(heard, is_right(reference, heard)) for reference, heard in words])
    return f"""<article>
<header><b>{pair.loss:.2f}</b><span>{item.seconds:.2f} s</span>
<span>{html.escape(item.id)}</span></header>
<dl><dt>text</dt><dd>{text}</dd><dt>heard</dt><dd>{heard}</dd></dl>
{_audio(item, sample_rate, longest)}
</article>"""


def _marked(words: Sequence[tuple[str, bool]]) -> str:
    """Returns words as HTML; those that are not right are marked."""
    return " ".join(
        html.escape(word) if right else f"<mark>{html.escape(word)}</mark>"
        for word, right in words
        if word
    )


def _audio(item: StoredUtterance, sample_rate: int, longest: float) -> str:
    try:
        samples = as_samples(item.audio, sample_rate)[: round(longest * sample_rate)]
    except AudioError as error:
        return f"<p>{html.escape(str(error))}</p>"
    data = base64.b64encode(flac(samples, sample_rate)).decode()
    return f'<audio controls preload="none" src="data:audio/flac;base64,{data}"></audio>'
