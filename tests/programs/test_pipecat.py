"""examples/pipecat_stt.py in Pipecat's pipeline: its voice detection, frames and metrics."""

import asyncio
import importlib.util
import itertools
import json
import re
import threading

import models
import numpy as np
import pytest
from paths import ROOT

import tdt_jax as tdt
from tdt_jax.audio.reading import read_audio

pytest.importorskip("pipecat", reason="needs Pipecat, as examples/pipecat_stt.py says")

from loguru import logger
from pipecat.frames.frames import (
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    InterruptionFrame,
    MetricsFrame,
    STTUpdateSettingsFrame,
    TranscriptionFrame,
    UserStoppedSpeakingFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.worker import PipelineParams
from pipecat.services.settings import STTSettings
from pipecat.tests.utils import SleepFrame, run_test
from pipecat.transcriptions.language import Language

pytestmark = pytest.mark.slow

PROMPTS = [
    ROOT / "tdt_jax" / "data" / "telephone" / "asterisk_en" / f"{name}.opus"
    for name in ("agent-incorrect", "agent-alreadyon")
]


@pytest.fixture(scope="module")
def program():
    path = ROOT / "examples" / "pipecat_stt.py"
    spec = importlib.util.spec_from_file_location("pipecat_stt", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def recogniser():
    """A causal recogniser, untrained: it emits labels all along."""
    return models.causal_recogniser()


@pytest.fixture
def errors():
    """What Pipecat logs as an error during a test."""
    messages = []
    number = logger.add(messages.append, level="ERROR")
    yield messages
    logger.remove(number)


class Recorder:
    """A stream that notes what it is asked to do, and on which thread."""

    def __init__(self, stream):
        self._stream, self.calls, self.threads = stream, [], set()

    def _note(self, call):
        self.calls.append(call)
        self.threads.add(threading.get_ident())

    def push(self, samples):
        self._note(samples)
        return self._stream.push(samples)

    def flush(self):
        self._note("flush")
        return self._stream.flush()

    def finish_turn(self):
        self._note("finish_turn")
        return self._stream.finish_turn()

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def samples(self):
        return np.concatenate([call for call in self.calls if not isinstance(call, str)])

    def ends(self):
        return [call for call in self.calls if isinstance(call, str)]

    def expected(self, recogniser) -> list[str]:
        """Returns the final texts of a stream that receives the samples in larger blocks."""
        stream, waiting, texts, length = tdt.Stream(recogniser), [np.zeros(0, np.int16)], [], 0
        for call in self.calls:
            if not isinstance(call, str):
                waiting.append(call)
                continue
            stream.push(np.concatenate(waiting))
            getattr(stream, call)()
            texts.append(stream.text[length:].strip())
            waiting, length = waiting[:1], len(stream.text)
        return [text for text in texts if text]


def service(program, recogniser, **options):
    stt = program.TdtSTTService(recogniser, **options)
    stt._stream = Recorder(stt._stream)
    return stt


def blocks(samples, rate=16000):
    """Returns samples [S] as audio frames of 20 ms."""
    pcm = (32767 * samples).astype(np.int16)
    size = rate // 50
    parts = [pcm[first : first + size] for first in range(0, len(pcm), size)]
    return [InputAudioRawFrame(part.tobytes(), rate, 1) for part in parts]


def send(stt, frames, **params):
    """Returns what the service pushes downstream when it receives frames."""
    params = PipelineParams(enable_metrics=True, send_initial_empty_metrics=False, **params)
    received, _ = asyncio.run(run_test(stt, frames_to_send=frames, pipeline_params=params))
    return received


def texts(frames, kind):
    return [frame.text for frame in frames if type(frame) is kind]


def test_a_call_in_real_time(program, recogniser, errors, capsys):
    """All audio is transcribed, each pause flushes it; the model runs on one other thread."""
    stt = service(program, recogniser)
    heard, seconds = asyncio.run(program.play(stt, PROMPTS))
    silence = np.zeros(16000)
    played = [part for path in PROMPTS for part in (read_audio(path), silence)]
    played = np.concatenate(played).clip(-1, 1)
    assert np.abs(stt._stream.samples() / 32767 - played).max() < 1e-4
    ends = stt._stream.ends()
    assert ends.count("finish_turn") == len(PROMPTS) + 1 and ends[0] == "flush"
    expected = stt._stream.expected(recogniser)
    assert len(heard) == len(PROMPTS) and all(heard)
    assert " ".join(heard) == " ".join(expected)
    printed = [line.split("  ")[1] for line in capsys.readouterr().out.splitlines()]
    assert printed == expected
    assert len(seconds) == ends.count("flush") >= len(PROMPTS)
    assert all(0.2 <= each < 2.0 for each in seconds)
    assert len(stt._stream.threads) == 1 and threading.get_ident() not in stt._stream.threads
    assert not errors


def test_frames_of_two_turns(program, recogniser):
    settings = STTSettings(language=Language.EN_US)
    stt = service(program, recogniser, settings=settings)
    turn = [
        VADUserStartedSpeakingFrame(start_secs=0.2),
        *blocks(models.noise(1.0)),
        InterruptionFrame(),  # as the bot is interrupted by the user
        *blocks(models.noise(1.0, seed=1)),
        VADUserStoppedSpeakingFrame(stop_secs=0.2),
    ]
    frames = send(stt, [*turn, UserStoppedSpeakingFrame(), *turn])
    finals = texts(frames, TranscriptionFrame)
    assert stt._stream.ends() == ["flush", "finish_turn", "flush", "finish_turn"]
    assert finals == stt._stream.expected(recogniser) and finals[0] == finals[1]
    ended = [type(frame) for frame in frames].index(TranscriptionFrame)
    interim = texts(frames[:ended], InterimTranscriptionFrame)
    assert len(interim) > 3 and all(a != b for a, b in itertools.pairwise(interim))
    assert finals[0].startswith(interim[-1].rpartition(" ")[0])
    assert len(texts(frames[ended:], InterimTranscriptionFrame)) > 3
    for frame in frames:
        if isinstance(frame, TranscriptionFrame | InterimTranscriptionFrame):
            assert frame.language == "en-US" and frame.timestamp
        if isinstance(frame, TranscriptionFrame):
            assert frame.finalized
    metrics = [each for frame in frames if isinstance(frame, MetricsFrame) for each in frame.data]
    assert len(metrics) == 2 and all(0.2 <= each.value < 30.0 for each in metrics)


def test_a_turn_without_words_and_a_call_that_ends_in_a_turn(program, recogniser):
    stt = service(program, recogniser)
    silent = [*blocks(np.zeros(1600)), VADUserStoppedSpeakingFrame(stop_secs=0.2)]
    stt._take_final = lambda end: ""
    assert not texts(send(stt, silent), TranscriptionFrame)
    stt = service(program, recogniser)
    frames = send(stt, blocks(models.noise(1.0)))
    assert texts(frames, TranscriptionFrame) == stt._stream.expected(recogniser) != []
    assert stt._stream.ends() == ["finish_turn"]


@pytest.mark.parametrize("rate", [8000, 24000])
def test_the_pipeline_may_have_another_rate(program, recogniser, rate):
    stt = service(program, recogniser)
    sine = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    send(stt, blocks(sine, rate), audio_in_sample_rate=rate)
    samples = stt._stream.samples()
    assert 0.9 * 16000 < len(samples) < 16000
    spectrum = np.abs(np.fft.rfft(samples[4000:12000] * np.hanning(8000)))
    assert spectrum.argmax() * 2 == 440


def test_settings_at_run_time(program, recogniser):
    stt = service(program, recogniser)
    update = STTUpdateSettingsFrame(delta=STTSettings(language="de"))
    stop = VADUserStoppedSpeakingFrame(stop_secs=0.2)
    frames = send(stt, [update, SleepFrame(), *blocks(models.noise(1.0)), stop])
    assert [frame.language for frame in frames if type(frame) is TranscriptionFrame] == ["de"]


def test_a_cancelled_call_ends(program, recogniser, errors):
    stt = service(program, recogniser)

    async def call():
        playing = asyncio.create_task(program.play(stt, PROMPTS))
        while len(stt._stream.calls) < 50:
            await asyncio.sleep(0.02)
        playing.cancel()
        heard, seconds = await playing
        assert heard == [""] and not seconds

    asyncio.run(call())
    assert 50 <= len(stt._stream.calls) < 100
    assert not stt._stream.ends()
    assert stt._thread._shutdown
    assert not errors


def test_the_program(program, recogniser, tmp_path, capsys):
    tdt.save(recogniser, tmp_path / "model")
    entry = {"audio_filepath": str(PROMPTS[0]), "duration": 5.16, "text": "login incorrect"}
    (tmp_path / "all.jsonl").write_text(f"{json.dumps(entry)}\n" * 2)
    options = ["--num", "1", "--rate", "8000", "--lookahead", "0.08"]
    program.main([str(tmp_path / "model"), str(tmp_path / "all.jsonl"), *options])
    output = capsys.readouterr().out
    number, *figures = re.findall(r"\d+", output[output.index("TTFS of ") :])
    assert int(number) >= 1 and all(200 <= int(each) < 2000 for each in figures[0:5:2])
    assert re.search(r"^WER \d+\.\d\d %\nCPU \d+ % of a core$", output, re.M)
