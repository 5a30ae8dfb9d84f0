"""Makes the corpus of configs/box.py: utterances of synthetic voices.

python examples/box/make_corpus.py kokoro --hours 3 --out corpus/kokoro
python examples/box/make_corpus.py test --out corpus/test
"""

import argparse
import json
from pathlib import Path

import numpy as np
import soundfile
import texts
import voices

RATE = voices.RATE
ENGINES = "kokoro", "hibari", "flite", "espeak", "festival"
NUM_TEST = 500
TEST_SEED = 99
OTHER = 0.07  # share of utterances about other things, with no transcript
SHARD = 120  # seconds


def prose() -> list[str]:
    """Returns the words of Python's own documentation, in order."""
    from pydoc_data.topics import topics

    text = " ".join(topics[name] for name in sorted(topics))
    return [word for word in text.split() if word.strip(",.").isalpha()]


def finished(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns samples without the silence at their ends, at a peak of 0.3 to 0.9."""
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
    samples = samples[max(0, loud[0] - 800) : loud[-1] + 1600]
    samples = samples * (rng.uniform(0.3, 0.9) / np.abs(samples).max())
    return np.pad(samples, [int(RATE * rng.uniform(0.02, 0.3)) for _ in range(2)])


def test_texts() -> list[list[str]]:
    rng = np.random.default_rng(TEST_SEED)
    return [texts.draw(rng)[1] for _ in range(NUM_TEST)]


class Writer:
    """Writes utterances into long files of Ogg Opus, with a manifest."""

    def __init__(self, folder: Path, level: float):
        self.folder, self.level, self.shard = folder, level, 0
        self.waiting, self.lines, self.size = [], [], 0
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, samples: np.ndarray, text: str, speaker: str) -> None:
        name = f"{self.shard:04d}.ogg"
        line = dict(
            audio_filepath=name, offset=self.size / RATE, duration=len(samples) / RATE, text=text,
            speaker=speaker,
        )  # fmt: skip
        self.lines.append(json.dumps(line))
        self.waiting.append(samples)
        self.size += len(samples)
        if self.size > SHARD * RATE:
            self.flush()

    def flush(self) -> None:
        if not self.waiting:
            return
        soundfile.write(
            self.folder / f"{self.shard:04d}.ogg", np.concatenate(self.waiting), RATE,
            format="OGG", subtype="OPUS", compression_level=self.level,
        )  # fmt: skip
        with (self.folder / "manifest.jsonl").open("a") as file:
            file.write("\n".join(self.lines) + "\n")
        self.waiting, self.lines, self.size, self.shard = [], [], 0, self.shard + 1


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("engine", choices=[*ENGINES, "test"])
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path, default="kokoro", help="of kokoro.py [kokoro]")
    parser.add_argument("--packs", type=Path, help="folder of Kokoro's voices, *.bin")
    parser.add_argument("--kbps", type=float, default=12.0)
    a = parser.parse_args()

    def make(engine):
        return voices.kokoro(a.model, a.packs) if engine == "kokoro" else getattr(voices, engine)()

    writer = Writer(a.out, 1 - (a.kbps - 6) / 250)
    tests = test_texts()
    if a.engine == "test":
        kokoro, flite = make("kokoro"), make("flite")
        for number, words in enumerate(tests):
            rng = np.random.default_rng((TEST_SEED, number))
            speak = flite if number % 5 == 4 else kokoro
            samples, speaker = speak(words, rng, True)
            writer.add(finished(samples, rng), " ".join(words), speaker)
        writer.flush()
        return
    unseen = {" ".join(words) for words in tests if len(words) > 3}
    speak, words_of_prose = make(a.engine), prose()
    seconds, number = 0.0, 0
    while seconds < a.hours * 3600:
        number += 1
        rng = np.random.default_rng((a.seed, ENGINES.index(a.engine), number))
        if rng.random() < OTHER:
            start = rng.integers(len(words_of_prose) - 20)
            words, text = words_of_prose[start : start + rng.integers(3, 13)], ""
        else:
            _, words = texts.draw(rng)
            text = " ".join(words)
            if text in unseen:
                continue
        try:
            samples, speaker = speak(words, rng, False)
        except Exception as error:
            print(number, words, repr(error)[:200], flush=True)
            continue
        if len(samples) < RATE // 10 or not np.abs(samples).max() > 0.01:
            continue
        samples = finished(samples, rng)
        writer.add(samples, text, speaker)
        seconds += len(samples) / RATE
    writer.flush()


if __name__ == "__main__":
    main()
