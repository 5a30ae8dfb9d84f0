"""Transcribes the user of a Pipecat voice agent: an STTService around `tdt_jax.Stream`.

    pip install pipecat-ai 'sentencepiece<0.2.2'  # Pipecat's protobuf is too old for newer ones
    python examples/pipecat_stt.py runs/quickstart_streaming talk.wav
    python examples/pipecat_stt.py runs/quickstart_streaming test.jsonl --lookahead 0.16 --num 50

`TdtSTTService` is what an agent needs: Pipeline([transport.input(), vad, TdtSTTService(recogniser),
...]). The rest of the file plays recordings to it in real time, as a call would, and prints what it
transcribes and Pipecat's own measure of latency, TTFS: the seconds from the end of speech to the
final transcript. Pipecat's VAD waits for 0.2 s of silence, so TTFS can hardly be less.
"""

import argparse
import asyncio
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import soxr
from loguru import logger
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.audio.vad.vad_analyzer import VADParams
from pipecat.frames.frames import (
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    MetricsFrame,
    TranscriptionFrame,
    UserStoppedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.metrics.metrics import TTFBMetricsData
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.audio.vad_processor import VADProcessor
from pipecat.services.settings import STTSettings
from pipecat.services.stt_service import STTService
from pipecat.transcriptions.language import Language
from pipecat.utils.time import time_now_iso8601
from pipecat.workers.runner import WorkerRunner

import tdt_jax as tdt
from tdt_jax.audio.reading import read_audio
from tdt_jax.data.manifest import read_manifest
from tdt_jax.inference.metrics import word_error_rate

BLOCK_SECONDS = 0.02  # as telephony and WebRTC deliver audio
SILENCE_SECONDS = 1.0  # after each recording


class TdtSTTService(STTService):
    """Transcribes one participant: interim text while they speak, the final text when they stop.

    All audio goes to the model as it arrives, so that little is left to do when the VAD reports the
    end of speech. It reports every pause of 0.2 s; the model goes on with its knowledge of the past
    until the user's turn is over. An interruption changes nothing: it is the user who speaks. The
    model runs on a thread of its own, call after call, and never blocks the event loop.

    Args:
      recogniser: shared by all participants of the process.
      lookahead: seconds, one of those that a causal model was trained with; None: its first. A
        model that is not causal has none, and encodes a window of audio again for each chunk.
      settings: `model`, a name for metrics, and `language`, for models that do not report it.
    """

    def __init__(self, recogniser, *, lookahead=None, settings=None, **options):
        stored = STTSettings(model=None, language=None)
        stored.apply_update(settings or STTSettings())
        super().__init__(settings=stored, **{"ttfs_p99_latency": 0.25, **options})
        self._model_rate = recogniser.config.features.sample_rate
        self._stream = tdt.Stream(recogniser, lookahead=lookahead, end_of_turn=None)
        self._stream.warm_up()  # compiles if this is the first stream of the process
        self._num_final = 0  # characters of the stream's text
        self._interim = ""
        self._thread = ThreadPoolExecutor(max_workers=1)

    def can_generate_metrics(self) -> bool:
        return True

    async def setup(self, setup):
        await super().setup(setup)
        self._resampler = soxr.ResampleStream(self.sample_rate, self._model_rate, 1, dtype="int16")

    async def run_stt(self, audio: bytes):
        """Yields the text of the turn so far, when it has changed."""
        text = await self._in_thread(self._push, audio)
        if text not in ("", self._interim):
            self._interim = text
            yield InterimTranscriptionFrame(text, *self._about())

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, VADUserStoppedSpeakingFrame):
            await self._finalize(self._stream.flush)
        elif isinstance(frame, UserStoppedSpeakingFrame):  # the turn is over, says the aggregator
            await self._finalize(self._stream.finish_turn)

    async def stop(self, frame):
        await self._finalize(self._stream.finish_turn)  # of a user who speaks when the call ends
        await super().stop(frame)

    async def cleanup(self):
        await super().cleanup()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _update_settings(self, delta):
        changed = await super()._update_settings(delta)
        self._warn_unhandled_updated_settings(changed.keys() - {"language"})
        return changed

    async def _finalize(self, end):
        """Pushes the text since the last final one, if there is any."""
        self.request_finalize()
        text = await self._in_thread(self._take_final, end)
        self.confirm_finalize()
        if text:
            await self.push_frame(TranscriptionFrame(text, *self._about()))

    def _about(self):
        """Returns what follows the text in a frame: user, time and language."""
        try:
            language = Language(self._stream.language or self._settings.language)
        except ValueError:  # there is none, or Pipecat does not know it
            language = None
        return self._user_id, time_now_iso8601(), language

    async def _in_thread(self, function, *arguments):
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    def _push(self, audio: bytes) -> str:
        self._stream.push(self._resampler.resample_chunk(np.frombuffer(audio, np.int16)))
        return (self._stream.text + self._stream.pending)[self._num_final :].strip()

    def _take_final(self, end) -> str:
        end()
        text = self._stream.text[self._num_final :].strip()
        self._num_final = len(self._stream.text)
        self._interim = ""
        return text


async def speak(worker: PipelineWorker, samples: np.ndarray, rate: int) -> None:
    """Gives samples [S] to a pipeline in blocks, each when it would have been spoken."""
    pcm, size = (32767 * samples.clip(-1, 1)).astype(np.int16), round(BLOCK_SECONDS * rate)
    start = time.monotonic()
    for first in range(0, len(pcm), size):
        block = pcm[first : first + size]
        await asyncio.sleep(max(0.0, start + (first + len(block)) / rate - time.monotonic()))
        await worker.queue_frame(InputAudioRawFrame(block.tobytes(), rate, 1))


async def play(stt: STTService, recordings, rate: int = 16000) -> tuple[list[str], list[float]]:
    """Plays recordings, one after another, through a pipeline.

    Returns the text of each, and the TTFS of every final transcript in seconds.
    """
    vad = VADProcessor(vad_analyzer=SileroVADAnalyzer(params=VADParams(stop_secs=0.2)))
    options = dict(enable_metrics=True, send_initial_empty_metrics=False)
    params = PipelineParams(audio_in_sample_rate=rate, **options)
    worker = PipelineWorker(Pipeline([vad, stt]), params=params, enable_rtvi=False)
    worker.set_reached_downstream_filter((TranscriptionFrame, MetricsFrame))
    texts, seconds = [], []

    @worker.event_handler("on_frame_reached_downstream")
    async def take(worker, frame):
        if isinstance(frame, TranscriptionFrame):
            print(f"{time.strftime('%X')}  {frame.text}", flush=True)
            texts[-1] = f"{texts[-1]} {frame.text}".strip()
        else:
            seconds.extend(each.value for each in frame.data if isinstance(each, TTFBMetricsData))

    async def call():
        for recording in recordings:
            texts.append("")
            await speak(worker, await asyncio.to_thread(read_audio, recording, rate), rate)
            await speak(worker, np.zeros(round(SILENCE_SECONDS * rate)), rate)
            await worker.queue_frame(UserStoppedSpeakingFrame())  # as an agent's aggregator does
        await worker.stop_when_done()

    runner = WorkerRunner()
    await runner.add_workers(worker)
    calling = asyncio.create_task(call())
    await runner.run()
    calling.cancel()
    return texts, seconds


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", help="a run, a .nemo archive, a Hugging Face folder or repository")
    parser.add_argument("recording", help="a file, or a manifest in JSONL")
    parser.add_argument("--lookahead", type=float, help="in seconds [the model's first]")
    parser.add_argument("--rate", type=int, default=16000, help="of the pipeline: 8000 or 16000 Hz")
    parser.add_argument("--num", type=int, help="recordings of the manifest [all]")
    options = parser.parse_args(arguments)

    recordings, references = [options.recording], []
    if options.recording.endswith(".jsonl"):
        entries = read_manifest(options.recording)[: options.num]
        recordings = [entry.audio for entry in entries]
        references = [entry.text for entry in entries]
    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    stt = TdtSTTService(tdt.load(options.model), lookahead=options.lookahead)
    wall, cpu = time.perf_counter(), time.process_time()
    texts, seconds = asyncio.run(play(stt, recordings, options.rate))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    if seconds:
        median, p95, p99 = 1000 * np.quantile(seconds, [0.5, 0.95, 0.99])
        print(f"TTFS of {len(seconds)} transcripts: ", end="")
        print(f"median {median:.0f} ms, 95 % {p95:.0f} ms, 99 % {p99:.0f} ms")
    if references:
        print(f"WER {100 * word_error_rate(references, texts).rate:.2f} %")
    print(f"CPU {100 * cpu / wall:.0f} % of a core")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:  # a bad argument or file, which it names
        sys.exit(f"error: {error}")
