"""Connected telephone speech, composed from recordings of single words.

A grammar (tdt_jax.data.telephone.grammar) draws texts: numbers, dates, codes and the like. For each
word one of its recordings is taken, all of one speaker, and these are joined at random speeds and
levels with random pauses. Some utterances are recorded phrases instead. Everything is a pure
function of a seed.

A text of three words or more is a test text if the CRC-32 of its words is divisible by eight. No
training utterance has such a text, be it composed or recorded, so the test measures unseen orders
of words. The recordings of the words are the same in training and test, as there is one speaker and
mostly one recording of each word. A longer training text may contain a test text.
"""

import functools
import json
import zlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tdt_jax.audio.reading import read_audio
from tdt_jax.audio.waveform import add_noise, noise, resample, sound, trim
from tdt_jax.config import TelephoneConfig
from tdt_jax.data.telephone.grammar import KINDS, chance, pick
from tdt_jax.data.utterance import SpokenWord, Utterance

FADE_SECONDS = 0.005  # at both edges of a recording
JOIN_PROBABILITY = 0.2  # that another text of the grammar follows
UNCUT_ATTEMPTS = 10  # before a text that does not fit is cut short
PHRASE_SECONDS = 8.0  # longest recorded phrase in the test


class Recording(NamedTuple):
    name: str  # file name
    text: str
    seconds: float


def prompts_folder() -> Path:
    """Returns the folder of the recordings that come with the package; it has its own licence."""
    return Path(__file__).parent / "asterisk_en"


def is_test_text(text: str) -> bool:
    """Returns whether a text is reserved for testing: one in eight of three words or more."""
    words = text.split()
    return len(words) > 2 and zlib.crc32(" ".join(words).encode()) % 8 == 0


class Telephone:
    """Composes utterances; recordings are decoded when they are first needed."""

    def __init__(self, config: TelephoneConfig, *, sample_rate: int, seed: int = 0):
        """Reads the list of recordings.

        Args:
          config: which texts, and how they are joined.
          sample_rate: of the utterances, in Hz.
          seed: of the test set and of the texts for a tokenizer.
        """
        if unknown := sorted(set(config.kinds) - set(KINDS)):
            raise ValueError(
                f"telephone.kinds has {', '.join(unknown)}; there are {', '.join(KINDS)}"
            )
        self.config = config
        self.seed = seed
        self.sample_rate = sample_rate
        self.kinds = [KINDS[name] for name in config.kinds]
        self.words = sorted({w for kind in self.kinds for unit in kind.units for w in unit.split()})
        self._takes: dict[str, list[Recording]] = defaultdict(list)  # unit -> its recordings
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
        self._takes = dict(self._takes)
        self._phrases.sort(key=lambda recording: recording.seconds)
        self._phrase_seconds = [recording.seconds for recording in self._phrases]

    def sample_text(self, rng: np.random.Generator) -> str:
        """Returns a random text of the grammar that is not a test text."""
        while is_test_text(text := " ".join(self._draw_units(rng))):
            pass
        return text

    def compose(self, text: str | Sequence[str], rng: np.random.Generator) -> np.ndarray:
        """Returns a text, or words and recorded pairs of words, as speech: float32 in [-1, 1]."""
        units = self._split(text) if isinstance(text, str) else list(text)
        if missing := [unit for unit in units if unit not in self._takes]:
            raise ValueError(f"no recording of {', '.join(map(repr, missing))}")
        if not units:
            raise ValueError("cannot compose speech of an empty text")
        return self._join(self._draw_clips(units, pick(rng, self.config.speed), rng), rng)[0]

    def sample(
        self,
        rng: np.random.Generator,
        *,
        max_seconds: float,
        max_words: int | None = None,
        min_seconds: float = 0.0,
    ) -> Utterance:
        """Returns a random training utterance of at most `max_seconds` and `max_words`.

        Texts that are too short for `min_seconds` are joined, as far as the limits allow. After
        several attempts at a text that fits, texts are cut after a word, and may be shorter than
        `min_seconds`.
        """
        most = int(max_seconds * self.sample_rate)
        least = int(min_seconds * self.sample_rate)
        if max_words is None:
            max_words = most
        config = self.config
        if config.noise_probability and chance(rng, config.noise_probability):
            return self._sample_noise(rng, most, least)
        if chance(rng, config.phrase_probability):
            phrase = self._sample_phrase(rng, most, least)
            if phrase is not None and len(phrase.text.split()) <= max_words:
                return phrase
        in_fragments = bool(config.fragment_probability) and chance(
            rng, config.fragment_probability
        )
        for attempt in range(100):
            speed = pick(rng, config.speed)
            units, clips, joints = [], [], []  # joints: where texts begin, in units
            while not units or self._length(clips) < least:
                joints.append(len(units))
                more = self._draw_units(rng)
                if in_fragments:
                    place = int(rng.integers(len(more)))
                    more = more[place:] if chance(rng, 0.5) else more[: place + 1]
                units += more
                clips += self._draw_clips(more, speed, rng)
            if attempt >= UNCUT_ATTEMPTS:
                while len(units) > 1 and not self._fits(units, clips, most, max_words):
                    units.pop()
                    clips.pop()
            text = " ".join(units)
            if not self._fits(units, clips, most, max_words) or is_test_text(text):
                continue
            joints = [joint for joint in joints[1:] if joint < len(units)]
            samples, starts = self._join(clips, rng, most, joints)
            if len(samples) >= least or attempt >= UNCUT_ATTEMPTS:
                return Utterance("composed", samples, text, starts[0])
        raise ValueError(
            f"no recorded word fits max_seconds={max_seconds} with max_words={max_words}"
        )

    def texts(self, n: int) -> list[str]:
        """Returns `n` texts to train a tokenizer on: all that is recorded, then random ones."""
        rng = np.random.default_rng((self.seed, 1))
        phrase_probability = self.config.phrase_probability
        texts = sorted({unit for kind in self.kinds for unit in kind.units})
        if phrase_probability > 0:
            texts += [phrase.text for phrase in self._phrases]
        while len(texts) < n:
            is_phrase = chance(rng, phrase_probability)
            texts.append(pick(rng, self._phrases).text if is_phrase else self.sample_text(rng))
        return texts[:n]

    def test_sets(self) -> dict[str, list[Utterance]]:
        """Returns all test sets by name."""
        return {"composed": self.test_set(), "phrases": self.test_phrases()}

    def test_set(self, *, max_seconds: float = 8.0) -> list[Utterance]:
        """Returns `config.num_test` composed utterances of test texts, with noise.

        Their `words` have times; a pair of words that was recorded together is one of them.
        """
        rng = np.random.default_rng((self.seed, 2))
        most = int(max_seconds * self.sample_rate)
        utterances: dict[str, Utterance] = {}
        for _ in range(1000 * self.config.num_test):
            if len(utterances) == self.config.num_test:
                break
            units = self._draw_units(rng)
            text = " ".join(units)
            if not is_test_text(text) or text in utterances:
                continue
            clips = self._draw_clips(units, pick(rng, self.config.speed), rng)
            if self._fits(units, clips, most, len(text)):
                samples, starts = self._join(clips, rng, most)
                samples = add_noise(samples, rng.uniform(*self.config.snr), rng)
                name = f"composed-{len(utterances):04d}"
                words = tuple(map(self._spoken, units, clips, starts))
                utterances[text] = Utterance(name, samples, text, starts[0], words)
        if len(utterances) < self.config.num_test:
            raise ValueError(
                f"telephone.num_test is {self.config.num_test}, but the kinds "
                f"{', '.join(self.config.kinds)} gave only {len(utterances)} test texts"
            )
        return list(utterances.values())

    def test_phrases(self) -> list[Utterance]:
        """Returns the recorded phrases that are not trained on, as they were recorded.

        Of their words only where the first starts and the last ends is known.
        """
        utterances = []
        for recording in self._test_phrases:
            samples = read_audio(prompts_folder() / recording.name, self.sample_rate)
            name, text = recording.name.removesuffix(".opus"), recording.text
            utterances.append(
                Utterance(name, samples, text, words=(self._spoken(text, samples, 0),))
            )
        return utterances

    def _draw_units(self, rng: np.random.Generator) -> list[str]:
        units = pick(rng, self.kinds).draw(rng)
        return [*units, *self._draw_units(rng)] if chance(rng, JOIN_PROBABILITY) else units

    def _split(self, text: str) -> list[str]:
        """Returns a text as units, with pairs of words where they were recorded together."""
        words = text.split()
        units = []
        while words:
            size = 2 if len(words) > 1 and " ".join(words[:2]) in self._takes else 1
            units.append(" ".join(words[:size]))
            words = words[size:]
        return units

    def _draw_clips(
        self, units: Sequence[str], speed: float, rng: np.random.Generator
    ) -> list[np.ndarray]:
        return [self._clip(pick(rng, self._takes[unit]).name, speed) for unit in units]

    def _clip(self, name: str, speed: float) -> np.ndarray:
        return _clips(name, self.sample_rate, self.config.speed)[speed]

    def _spoken(self, text: str, clip: np.ndarray, start: int) -> SpokenWord:
        """Returns the words of a clip that starts at a sample, with the times of their sound."""
        ends = sound(clip.astype(np.float32), self.sample_rate)
        return SpokenWord(text, *((start + end) / self.sample_rate for end in ends))

    def _sample_noise(self, rng: np.random.Generator, most: int, least: int) -> Utterance:
        """Returns an utterance of noise without speech, from -80 to -20 dBFS."""
        size = int(rng.integers(max(least, self.sample_rate // 2), most + 1))
        level = 10 ** rng.uniform(-4, -1)
        return Utterance("noise", (level * noise(size, rng)).astype(np.float32), "")

    def _sample_phrase(self, rng: np.random.Generator, most: int, least: int) -> Utterance | None:
        """Returns a recorded phrase for training, or None if a draw does not fit."""
        low, high = np.searchsorted(
            self._phrase_seconds, (least / self.sample_rate, most / self.sample_rate)
        )
        if low == high:
            return None
        recording = self._phrases[rng.integers(low, high)]
        clips = [self._clip(recording.name, pick(rng, self.config.speed))]
        if not self._fits([recording.text], clips, most, most):
            return None
        samples, starts = self._join(clips, rng, most)
        if len(samples) < least:
            return None
        name = recording.name.removesuffix(".opus")
        return Utterance(name, samples, recording.text, starts[0])

    def _length(self, clips: Sequence[np.ndarray]) -> float:
        """Returns the samples of clips with average gaps between and around them."""
        pause = sum(self.config.gap) / 2 * self.sample_rate
        return sum(map(len, clips)) + (len(clips) + 1) * pause

    def _fits(
        self, units: Sequence[str], clips: Sequence[np.ndarray], most: int, max_words: int
    ) -> bool:
        num_words = sum(len(unit.split()) for unit in units)
        return num_words <= max_words and self._length(clips) <= most

    def _join(
        self,
        clips: Sequence[np.ndarray],
        rng: np.random.Generator,
        most: float = np.inf,
        joints: Sequence[int] = (),
    ) -> tuple[np.ndarray, list[int]]:
        """Joins clips with pauses between and around them.

        Returns:
          at most `most` samples, and at which of them each clip starts.
        """
        gaps = self._draw_gaps(rng, len(clips), most - sum(map(len, clips)), joints)
        gains = 10 ** (rng.uniform(-1, 1, len(clips)) * self.config.word_gain / 20)
        samples = np.zeros(gaps.sum() + sum(map(len, clips)), np.float32)
        start, starts, middles = 0, [], []  # middles: of the gap before each clip
        for clip, gap, gain in zip(clips, gaps[:-1], gains, strict=True):
            middles.append(start + gap // 2)
            start += gap
            starts.append(int(start))
            np.multiply(clip, np.float32(gain), out=samples[start : start + len(clip)])
            start += len(clip)
        change_probability = self.config.joint_change_probability
        if joints and change_probability and chance(rng, change_probability):
            centers = np.array([middles[joint] for joint in joints])
            silences = gaps[joints] * np.maximum(rng.uniform(-1, 1, len(joints)), 0)
            ends = np.stack([centers - silences / 2, centers + silences / 2], axis=1).astype(int)
            parts = np.split(samples, ends.ravel())
            parts[::2] = [self._with_level_and_noise(part, rng) for part in parts[::2]]
            return np.concatenate(parts), starts
        peak = max(samples.max(), -samples.min())
        samples *= 10 ** (rng.uniform(*self.config.level) / 20) / peak
        return samples, starts

    def _with_level_and_noise(self, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        peak = max(samples.max(), -samples.min())
        samples = samples * np.float32(10 ** (rng.uniform(*self.config.level) / 20) / peak)
        return add_noise(samples, rng.uniform(*self.config.snr), rng)

    def _draw_gaps(
        self, rng: np.random.Generator, count: int, room: float, joints: Sequence[int]
    ) -> np.ndarray:
        """Returns the samples of silence before each of `count` clips and after the last.

        They add up to at most `room`. Where there is little room the gaps shrink towards the
        shortest; long silences (at the start, at the end, in one gap inside and at the joints of
        texts) share what the gaps leave.
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


@functools.cache
def _clips(name: str, sample_rate: int, speeds: tuple[float, ...]) -> dict[float, np.ndarray]:
    """Returns a recording at each speed: trimmed, faded at the edges, int16 to save memory."""
    samples = trim(read_audio(prompts_folder() / name, sample_rate), sample_rate)
    size = round(FADE_SECONDS * sample_rate)
    ramp = np.arange(1, size + 1, dtype=np.float32) / size
    clips = {}
    for speed in speeds:
        clip = np.clip(resample(samples, sample_rate * speed, sample_rate), -1, 1) * 32767
        clip[:size] *= ramp
        clip[-size:] *= ramp[::-1]
        clips[speed] = clip.astype(np.int16)
    return clips
