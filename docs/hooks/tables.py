"""Fills in tables of the documentation that are made from the code when the pages are built.

A page holds a comment where a table goes: `<!-- configuration fields -->` or `<!-- presets -->`.
"""

import dataclasses
import inspect
import math
import textwrap
import tokenize
import typing

import jax
from flax import nnx

import tdt_jax as tdt


def on_page_markdown(markdown: str, **_) -> str:
    """Returns the page with its tables; mkdocs calls this for every page."""
    for comment, table in TABLES.items():
        if comment in markdown:
            markdown = markdown.replace(comment, table())
    return markdown


def configuration_fields() -> str:
    """Returns a table of the fields of each part of `tdt_jax.Config`, under a heading."""
    sections = []
    for name, cls in _parts(tdt.Config):
        rows = [_row(field, cls) for field in dataclasses.fields(cls)]
        rows = [row for row in rows if row]
        if rows:
            table = _table(("field", "default", "meaning"), rows)
            sections.append(f"### {name}\n\n{_first_sentence(cls)}\n\n{table}")
    return "\n\n".join(sections)


def presets() -> str:
    """Returns a table of the model sizes in `tdt_jax.presets`."""
    rows = []
    for name, value in vars(tdt.presets).items():
        if isinstance(value, tdt.ModelConfig):
            encoder, predictor = value.encoder, value.predictor
            kind = f"{value.kind}, CTC" if value.ctc and predictor else value.kind
            lstm = f"{predictor.num_layers} x {predictor.width}" if predictor else ""
            sizes = encoder.width, encoder.num_layers, encoder.num_heads, lstm
            mels, vocabulary = value.features.num_mels, value.vocab_size
            rows.append((f"`{name}`", kind, _size(value), *sizes, mels, vocabulary))
    header = (
        "name", "kind", "parameters", "width", "layers", "heads", "predictor", "mel bins",
        "vocabulary",
    )  # fmt: skip
    return _table(header, rows)


TABLES = {
    "<!-- configuration fields -->": configuration_fields,
    "<!-- presets -->": presets,
}


def _parts(cls, prefix: str = ""):
    """Yields (dotted name, dataclass) of every part of a configuration, the whole left out."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        for part in _dataclasses_in(hints[field.name]):
            name = prefix + field.name
            is_list = typing.get_origin(hints[field.name]) is tuple
            yield (f"{name}, each" if is_list else name), part
            yield from _parts(part, f"{name}.")


def _dataclasses_in(hint) -> list[type]:
    """Returns the dataclasses that a type hint names: X, X | None or tuple[X, ...]."""
    if dataclasses.is_dataclass(hint):
        return [hint]
    return [each for part in typing.get_args(hint) for each in _dataclasses_in(part)]


def _row(field: dataclasses.Field, cls) -> tuple[str, str, str] | None:
    """Returns a field's name, default and comment; None if it is a part with fields of its own."""
    if field.default_factory is not dataclasses.MISSING:
        return None
    is_required = field.default is dataclasses.MISSING
    default = "(required)" if is_required else f"`{_shown(field.default)}`"
    return f"`{field.name}`", default, _comments(cls).get(field.name, "")


def _shown(value) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
        return ", ".join(map(str, value))
    return repr(value) if not isinstance(value, str) else value or '""'


def _comments(cls) -> dict[str, str]:
    """Returns what the source says of each field: its comments, or the string below it."""
    lines = textwrap.dedent(inspect.getsource(cls)).splitlines(keepends=True)
    comments, strings, above, name = {}, {}, [], None
    for token in tokenize.generate_tokens(iter(lines).__next__):
        starts_line = not token.line[: token.start[1]].strip()
        if token.type == tokenize.COMMENT:
            text = token.string.lstrip("# ")
            if starts_line:
                above.append(text)
            elif name and not text.startswith("fmt:"):
                comments[name] = [*comments.get(name, []), text]
        elif token.type == tokenize.NAME and starts_line and token.start[1] == 4:
            if token.string in ("def", "class"):
                break
            name = token.string
            if above:
                comments[name], above = above, []
        elif token.type == tokenize.STRING and starts_line and name:
            strings[name] = [inspect.cleandoc(token.string.strip('"'))]
    found = comments | strings
    return {name: " ".join(" ".join(text).split()) for name, text in found.items()}


def _first_sentence(cls) -> str:
    text = " ".join(inspect.getdoc(cls).partition("\n\n")[0].split())
    return text if text.endswith(".") else f"{text}."


def _size(config: tdt.ModelConfig) -> str:
    """Returns the number of parameters, rounded."""
    shapes = jax.eval_shape(lambda: tdt.Transducer(config, rngs=nnx.Rngs(0)))
    number = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    return f"{number / 1e6:.3g} M" if number < 1e9 else f"{number / 1e9:.3g} B"


def _table(header, rows) -> str:
    lines = [header, ["---"] * len(header), *rows]
    escaped = ([str(cell).replace("|", "\\|") for cell in row] for row in lines)
    return "\n".join(f"| {' | '.join(row)} |" for row in escaped)
