"""Recordings that share batches: the transcripts of `transcribe`, whoever comes and goes."""

import pytest
import stub
from models import make_recogniser, speech

import tdt_jax as tdt
from tdt_jax.inference import transcription
from tdt_jax.inference.shared_batches import SharedBatches

AUDIO = [speech(seconds, seed) for seed, seconds in enumerate((1.0, 2.2, 7.5, 0.6, 2.0, 4.1))]


@pytest.fixture(scope="module")
def recogniser():
    return make_recogniser(piece_seconds=2.56)


@pytest.fixture
def shapes(monkeypatch):
    """Decodes without a model, and notes the shape of each batch."""
    seen = []

    def decode(model, samples, num_samples, **options):
        seen.append((samples.shape[0], int((num_samples > 0).sum())))
        return stub.decode(model, samples, num_samples, **options)

    monkeypatch.setattr(transcription, "decode_samples_on_mesh", decode)
    return seen


def drained(batches):
    jobs = []
    while not batches.is_idle:
        jobs += batches.step()[1]
    return jobs


def test_transcripts_are_those_of_transcribe(recogniser, shapes):
    expected = tdt.transcribe(recogniser, AUDIO)
    batches = SharedBatches(recogniser)
    jobs = [batches.cut(samples) for samples in AUDIO]
    for job in jobs[:3]:
        batches.add(job)
    batches.step()
    for job in jobs[3:]:
        batches.add(job)
    drained(batches)
    assert [batches.transcript(job) for job in jobs] == expected


def test_jobs_share_batches_in_turn(recogniser, shapes):
    """A long recording does not keep short ones waiting."""
    batches = SharedBatches(recogniser)
    long, *short = (batches.cut(samples) for samples in (AUDIO[2] for _ in range(4)))
    for job in (long, *short):
        batches.add(job)
    drained(batches)
    rows = [filled for _, filled in shapes]
    assert sum(rows) == 4 * len(long.starts) and max(rows) == 4
    assert all(filled > size // 2 or size == 1 for size, filled in shapes)


def test_a_job_that_is_removed_takes_no_more_room(recogniser, shapes):
    batches = SharedBatches(recogniser)
    gone, other = batches.cut(AUDIO[2]), batches.cut(AUDIO[0])
    batches.add(gone)
    batches.add(other)
    batches.remove(gone)
    assert set(drained(batches)) == {other} and not gone.decoded


def test_a_failure_is_of_the_jobs_in_the_batch(recogniser, shapes, monkeypatch):
    batches = SharedBatches(recogniser)
    broken, other = batches.cut(AUDIO[0]), batches.cut(AUDIO[1])
    decode = transcription.decode_samples_on_mesh

    def fail(*arguments, **options):
        raise RuntimeError("out of memory")

    batches.add(broken)
    monkeypatch.setattr(transcription, "decode_samples_on_mesh", fail)
    drained(batches)
    monkeypatch.setattr(transcription, "decode_samples_on_mesh", decode)
    batches.add(other)
    drained(batches)
    assert isinstance(broken.error, RuntimeError) and broken.is_done
    assert other.error is None and batches.transcript(other).words


def test_certain_words_stay(recogniser, shapes):
    """What is certain before the end is the beginning of the whole."""
    batches = SharedBatches(recogniser)
    job = batches.cut(speech(40.0, 9))
    batches.add(job)
    seen = []
    while not batches.is_idle:
        batches.step()
        seen.append(batches.certain(job))
    assert len({len(words) for words in seen}) > 3
    assert all(seen[-1][: len(words)] == words for words in seen)
    assert seen[-1] == batches.transcript(job).words


def test_silence_has_a_transcript(recogniser, shapes):
    batches = SharedBatches(recogniser)
    job = batches.cut(0 * AUDIO[0])
    batches.add(job)
    drained(batches)
    assert batches.transcript(job).text == "" and batches.transcript(job).duration == 1.0
