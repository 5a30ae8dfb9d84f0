"""N-gram models in ARPA files: as KenLM scores them, with any of the names of labels."""

import math

import pytest
from graphs import weights

from tdt_jax.advice.arpa import OFFSET, arpa_graph
from tdt_jax.advice.guide import make_guide
from tdt_jax.tokenizer import Characters

TOKENIZER = Characters("abc ")
ARPA = """
\\data\\
ngram 1=6
ngram 2=4
ngram 3=2

\\1-grams:
-3.0\t<unk>
-99\t<s>\t-0.5
-1.5\t</s>
-0.5\ta\t-0.25
-0.75\tb\t-0.125
-1.0\t▁

\\2-grams:
-0.375\t<s> a\t-0.0625
-0.25\ta b\t-0.5
-0.3\tb ▁
-0.4\tb </s>

\\3-grams:
-0.125\t<s> a b
-0.1\ta b ▁

\\end\\
"""
# The logarithm of each character after the two before it, by hand: n-gram, or back-offs and less.
SCORES = {
    "ab ": [-0.375, -0.125, -0.1],
    "ba": [-0.5 - 0.75, -0.125 - 0.5],
    "aab": [-0.375, -0.0625 - 0.25 - 0.5, -0.25],
    "abab": [-0.375, -0.125, -0.5 - 0.125 - 0.5, -0.25],
    "cb": [-0.5 - 3.0, -0.75],
    "b c": [-0.5 - 0.75, -0.3, -3.0],
}


@pytest.mark.parametrize("names", ["pieces", "characters"])
@pytest.mark.parametrize("text", SCORES)
def test_scores_are_those_of_the_file(tmp_path, text, names):
    path = tmp_path / "model.arpa"
    content = ARPA
    if names == "characters":  # as NeMo has KenLM write labels
        for label, piece in enumerate("ab▁"):
            shifted = chr((label + (piece == "▁")) + OFFSET)
            content = content.replace(f" {piece}", f" {shifted}").replace(
                f"\t{piece}", f"\t{shifted}"
            )
    path.write_text(content, encoding="utf-8")
    found = weights(arpa_graph(path, 0.5, TOKENIZER), TOKENIZER.encode(text) if text[-1] != " " else
                   [*TOKENIZER.encode(text), 3])  # fmt: skip
    assert found == pytest.approx([0.5 * math.log(10) * each for each in SCORES[text]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("some text\n", "is not an ARPA file.*no .end"),
        (ARPA.replace("\n-0.25\ta b\t-0.5", "\n-0.25\ta"), "is not an ARPA file.*2-grams has 2"),
        (ARPA.replace("-0.25\ta b", "nan\ta b"), "is not an ARPA file.*no logarithms: 'nan"),
        (ARPA.replace("a b ▁", "a zebra ▁"), "of another vocabulary: 1 of its 4 words.*'zebra'"),
        (ARPA.replace("b", "zebra"), "of another vocabulary: 1 of its 3 words.*'zebra'"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    (tmp_path / "model.arpa").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        make_guide(TOKENIZER, lm=tmp_path / "model.arpa")


def test_a_weight_must_be_finite(tmp_path):
    (tmp_path / "model.arpa").write_text(ARPA, encoding="utf-8")
    with pytest.raises(ValueError, match="must be finite, got nan"):
        make_guide(TOKENIZER, lm=tmp_path / "model.arpa", lm_weight=math.nan)


def test_a_changed_file_is_read_again(tmp_path):
    path = tmp_path / "model.arpa"
    path.write_text(ARPA, encoding="utf-8")
    first, same = (make_guide(TOKENIZER, lm=path).language_model for _ in range(2))
    path.write_text(ARPA.replace("-0.75", "-0.8"), encoding="utf-8")
    assert first is same is not make_guide(TOKENIZER, lm=path).language_model
