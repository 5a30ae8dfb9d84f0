"""Connected telephone speech, composed on the fly from recorded single words.

A text comes from a grammar of numbers, dates, codes and the like (tdt_jax.data.telephone.grammar);
its words are recordings of one speaker, strung together with random takes, speed, levels and
pauses. Some utterances are whole recorded phrases instead. Everything is a pure function of a seed.

A text of three words or more is a test text when the CRC-32 of its words is divisible by eight:
training never says it, alone, composed or recorded, so the test measures unseen orders of words.
The recordings of the words are the same in training and test: there is one speaker, and mostly one
take of each word. A test text may also occur inside a longer training text.
"""

import json
import zlib
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soxr

from tdt_jax.audio.reading import read_audio
from tdt_jax.audio.waveform import add_noise, noise, trim
from tdt_jax.config import TelephoneConfig
from tdt_jax.data.telephone.grammar import KINDS, chance, pick
from tdt_jax.data.utterance import Utterance

RAMP = 0.005  # seconds of fade at both edges of a recording
JOIN_PROBABILITY = 0.2  # that another text of the grammar follows
UNCUT_ATTEMPTS = 10  # before a text that does not fit is cut short
PHRASE_SECONDS = 8.0  # longest recorded phrase in the test


class Recording(NamedTuple):
    name: str  # file name
    text: str
    seconds: float


def prompts_folder() -> Path:
    """The recordings that come with the package; the folder has its own licence."""
    return Path(__file__).parent / "asterisk_en"


def is_test_text(text: str) -> bool:
    """Whether a text is kept for testing: one in eight of those with three words or more."""
    words = text.split()
    return len(words) > 2 and zlib.crc32(" ".join(words).encode()) % 8 == 0


class Telephone:
    """Composes utterances for a TelephoneConfig; recordings are decoded when first needed."""

    def __init__(self, config: TelephoneConfig, *, seed: int = 0, sample_rate: int = 16000):
        if unknown := sorted(set(config.kinds) - set(KINDS)):
            raise ValueError(
                f"telephone.kinds has {', '.join(unknown)}; there are {', '.join(KINDS)}"
            )
        self.config = config
        self.seed = seed
        self.sample_rate = sample_rate
        self.kinds = [KINDS[name] for name in config.kinds]
        self.words = sorted({w for kind in self.kinds for unit in kind.units for w in unit.split()})
        self._clips: dict[str, dict[float, np.ndarray]] = {}  # name -> speed -> int16
        self._takes: dict[str, list[Recording]] = defaultdict(list)
        self._phrases: list[Recording] = []  # for training, by length
        self._test_phrases: list[Recording] = []
        for line in (prompts_folder() / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            recording = Recording(entry["audio_filepath"], entry["text"], entry["duration"])
            num_words = len(recording.text.split())
            if 1 <= num_words <= 2:
                self._takes[recording.text].append(recording)
            if num_words >= 2 and not is_test_text(recording.text):
                self._phrases.append(recording)
            elif num_words >= 2 and recording.seconds <= PHRASE_SECONDS:
                self._test_phrases.append(recording)
        self._takes.default_factory = None
        self._phrases.sort(key=lambda recording: recording.seconds)
        self._phrase_seconds = [recording.seconds for recording in self._phrases]

    def sample_text(self, rng: np.random.Generator) -> str:
        """A text of the grammar that is not a test text."""
        while is_test_text(text := " ".join(self._units(rng))):
            pass
        return text

    def compose(self, text: str | list[str], rng: np.random.Generator) -> np.ndarray:
        """Speak a text, or a list of words and recorded pairs of words, as float32 in [-1, 1]."""
        units = self._split(text) if isinstance(text, str) else list(text)
        if missing := [unit for unit in units if unit not in self._takes]:
            raise ValueError(f"no recording of {', '.join(map(repr, missing))}")
        if not units:
            raise ValueError("there is nothing to say: the text is empty")
        return self._play(self._choose(units, pick(rng, self.config.speed), rng), rng)[0]

    def sample(
        self,
        rng: np.random.Generator,
        *,
        max_seconds: float,
        max_words: int | None = None,
        min_seconds: float = 0.0,
    ) -> Utterance:
        """Draw a training utterance that fits.

        Texts that are too short for `min_seconds` are joined, as far as `max_seconds` and
        `max_words` allow; what keeps being too long is cut after a word.
        """
        most = int(max_seconds * self.sample_rate)
        least = int(min_seconds * self.sample_rate)
        if max_words is None:
            max_words = most
        config = self.config
        if config.noise_probability and chance(rng, config.noise_probability):
            return self._noise(rng, most, least)
        if chance(rng, config.phrase_probability):
            phrase = self._phrase(rng, most, least)
            if phrase is not None and len(phrase.text.split()) <= max_words:
                return phrase
        fragments = config.fragment_probability and chance(rng, config.fragment_probability)
        for attempt in range(100):
            speed = pick(rng, config.speed)
            units, clips, joints = [], [], []
            while not units or self._length(clips) < least:
                joints.append(len(units))
                more = self._units(rng)
                if fragments:
                    place = int(rng.integers(len(more)))
                    more = more[place:] if chance(rng, 0.5) else more[: place + 1]
                units += more
                clips += self._choose(more, speed, rng)
            if attempt >= UNCUT_ATTEMPTS:
                while len(units) > 1 and not self._fits(units, clips, most, max_words):
                    units.pop()
                    clips.pop()
            text = " ".join(units)
            if not self._fits(units, clips, most, max_words) or is_test_text(text):
                continue
            joints = [joint for joint in joints[1:] if joint < len(units)]
            samples, lead = self._play(clips, rng, most, joints)
            if len(samples) >= least or attempt >= UNCUT_ATTEMPTS:
                return Utterance("composed", samples, text, lead)
        raise ValueError(
            f"no recorded word fits max_seconds={max_seconds} with max_words={max_words}"
        )

    def texts(self, n: int) -> list[str]:
        """`n` texts from which to train a tokenizer: first all that is recorded, then samples."""
        rng = np.random.default_rng((self.seed, 1))
        phrase_probability = self.config.phrase_probability
        texts = sorted({unit for kind in self.kinds for unit in kind.units})
        if phrase_probability > 0:
            texts += [phrase.text for phrase in self._phrases]
        while len(texts) < n:
            spoken = chance(rng, phrase_probability)
            texts.append(pick(rng, self._phrases).text if spoken else self.sample_text(rng))
        return texts[:n]

    def test_set(self, *, max_seconds: float = 8.0) -> list[Utterance]:
        """`config.num_test` noisy composed utterances of texts that training never says."""
        rng = np.random.default_rng((self.seed, 2))
        most = int(max_seconds * self.sample_rate)
        utterances: dict[str, Utterance] = {}
        for _ in range(1000 * self.config.num_test):
            if len(utterances) == self.config.num_test:
                break
            units = self._units(rng)
            text = " ".join(units)
            if not is_test_text(text) or text in utterances:
                continue
            clips = self._choose(units, pick(rng, self.config.speed), rng)
            if self._fits(units, clips, most, len(text)):
                samples, lead = self._play(clips, rng, most)
                samples = add_noise(samples, rng.uniform(*self.config.snr), rng)
                name = f"composed-{len(utterances):04d}"
                utterances[text] = Utterance(name, samples, text, lead)
        if len(utterances) < self.config.num_test:
            raise ValueError(
                f"telephone.num_test is {self.config.num_test}, but the kinds "
                f"{', '.join(self.config.kinds)} gave only {len(utterances)} test texts"
            )
        return list(utterances.values())

    def tests(self) -> dict[str, list[Utterance]]:
        """All that a model is tested on, by name."""
        return {"composed": self.test_set(), "phrases": self.test_phrases()}

    def test_phrases(self) -> list[Utterance]:
        """The recorded phrases that are kept from training, as they were recorded."""
        return [
            Utterance(
                recording.name.removesuffix(".opus"),
                read_audio(prompts_folder() / recording.name, self.sample_rate),
                recording.text,
            )
            for recording in self._test_phrases
        ]

    def _units(self, rng) -> list[str]:
        units = pick(rng, self.kinds).say(rng)
        return [*units, *self._units(rng)] if chance(rng, JOIN_PROBABILITY) else units

    def _split(self, text: str) -> list[str]:
        """The recordings that say a text; pairs of words that were recorded together come first."""
        words = text.split()
        units = []
        while words:
            size = 2 if len(words) > 1 and " ".join(words[:2]) in self._takes else 1
            units.append(" ".join(words[:size]))
            words = words[size:]
        return units

    def _choose(self, units: list[str], speed: float, rng) -> list[np.ndarray]:
        return [self._clip(pick(rng, self._takes[unit]).name, speed) for unit in units]

    def _clip(self, name: str, speed: float) -> np.ndarray:
        """A recording trimmed, sped up and faded at the edges, as int16 to save memory."""
        if name not in self._clips:
            samples = read_audio(prompts_folder() / name, self.sample_rate)
            samples = trim(samples, self.sample_rate)
            self._clips[name] = {rate: self._at_speed(samples, rate) for rate in self.config.speed}
        return self._clips[name][speed]

    def _at_speed(self, samples: np.ndarray, speed: float) -> np.ndarray:
        if speed != 1:
            samples = soxr.resample(samples, self.sample_rate * speed, self.sample_rate)
        samples = np.clip(samples, -1, 1) * 32767
        size = round(RAMP * self.sample_rate)
        ramp = np.arange(1, size + 1, dtype=np.float32) / size
        samples[:size] *= ramp
        samples[-size:] *= ramp[::-1]
        return samples.astype(np.int16)

    def _noise(self, rng, most: int, least: int) -> Utterance:
        """A recording of noise alone, from -80 to -20 dBFS."""
        size = int(rng.integers(max(least, self.sample_rate // 2), most + 1))
        level = 10 ** rng.uniform(-4, -1)
        return Utterance("noise", (level * noise(size, rng)).astype(np.float32), "")

    def _phrase(self, rng, most: int, least: int) -> Utterance | None:
        low, high = np.searchsorted(
            self._phrase_seconds, (least / self.sample_rate, most / self.sample_rate)
        )
        if low == high:
            return None
        recording = self._phrases[rng.integers(low, high)]
        clips = [self._clip(recording.name, pick(rng, self.config.speed))]
        if not self._fits([recording.text], clips, most, most):
            return None
        samples, lead = self._play(clips, rng, most)
        name = recording.name.removesuffix(".opus")
        return Utterance(name, samples, recording.text, lead) if len(samples) >= least else None

    def _length(self, clips) -> float:
        """The samples that clips take with average gaps between and around them."""
        pause = sum(self.config.gap) / 2 * self.sample_rate
        return sum(map(len, clips)) + (len(clips) + 1) * pause

    def _fits(self, units, clips, most: int, max_words: int) -> bool:
        num_words = sum(len(unit.split()) for unit in units)
        return num_words <= max_words and self._length(clips) <= most

    def _play(
        self, clips: list[np.ndarray], rng, most: float = np.inf, joints=()
    ) -> tuple[np.ndarray, int]:
        """String the clips together with pauses between and around them: at most `most` samples.

        Also says how many samples come before the first clip.
        """
        gaps = self._gaps(rng, len(clips), most - sum(map(len, clips)), joints)
        gains = 10 ** (rng.uniform(-1, 1, len(clips)) * self.config.word_gain / 20)
        samples = np.zeros(gaps.sum() + sum(map(len, clips)), np.float32)
        start, middles = 0, []  # of the gaps
        for clip, gap, gain in zip(clips, gaps[:-1], gains, strict=True):
            middles.append(start + gap // 2)
            start += gap
            np.multiply(clip, np.float32(gain), out=samples[start : start + len(clip)])
            start += len(clip)
        change_probability = self.config.joint_change_probability
        if joints and change_probability and chance(rng, change_probability):
            middles = np.array([middles[joint] for joint in joints])
            silences = gaps[joints] * np.maximum(rng.uniform(-1, 1, len(joints)), 0)
            ends = np.stack([middles - silences / 2, middles + silences / 2], axis=1).astype(int)
            parts = np.split(samples, ends.ravel())
            parts[::2] = [self._recorded(part, rng) for part in parts[::2]]
            return np.concatenate(parts), gaps[0].item()
        peak = max(samples.max(), -samples.min())
        samples *= 10 ** (rng.uniform(*self.config.level) / 20) / peak
        return samples, gaps[0].item()

    def _recorded(self, samples: np.ndarray, rng) -> np.ndarray:
        """At a level and with a noise as a test utterance has them."""
        peak = max(samples.max(), -samples.min())
        samples = samples * np.float32(10 ** (rng.uniform(*self.config.level) / 20) / peak)
        return add_noise(samples, rng.uniform(*self.config.snr), rng)

    def _gaps(self, rng, count: int, room: float, joints) -> np.ndarray:
        """Samples of silence before each of `count` clips and after the last, `room` in all.

        Where there is little room the gaps shrink towards the shortest; long silences, at the
        start, at the end, in one gap inside and at the joints of texts, take what the gaps leave.
        """
        config = self.config
        shortest, longest = (int(seconds * self.sample_rate) for seconds in config.gap)
        gaps = rng.uniform(0, longest - shortest, count + 1)
        room -= (count + 1) * shortest
        gaps *= min(1.0, room / max(gaps.sum(), 1.0))
        silences = rng.uniform(0, config.long_silence_seconds, 3) * self.sample_rate
        silences *= rng.uniform(0, 1, 3) < config.long_silence_probability
        places = np.array([0, count, rng.integers(1, count) if count > 1 else 0])
        silences[2] *= count > 1
        if config.joint_silence_probability and joints:
            lengths, chances = rng.uniform(0, 1, (2, len(joints)))
            lengths *= config.long_silence_seconds * self.sample_rate
            lengths *= chances < config.joint_silence_probability
            silences, places = np.append(silences, lengths), np.append(places, joints)
        silences *= min(1.0, (room - gaps.sum()) / max(silences.sum(), 1.0))
        np.add.at(gaps, places, silences)
        return shortest + gaps.astype(int)
