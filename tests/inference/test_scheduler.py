"""The scheduler, driven by a decoder that is a stub: order, batches, memory, failures."""

import gc
import itertools
import threading
import time
import weakref

import numpy as np
import pytest

from tdt_jax.decoding.hypothesis import Hypothesis
from tdt_jax.inference.long_form import Window
from tdt_jax.inference.scheduler import (
    AHEAD,
    Shape,
    decode_recordings,
    pad_rows,
    read_ahead,
)

RATE = 1280  # a second is the least that the length of a row is rounded to
SHAPES = [Shape(1.0, 1), Shape(1.0, 4), Shape(3.0, 1), Shape(3.0, 2)]


class Decoder:
    """Decodes a window to one label, its first sample; notes batches and what is at work."""

    def __init__(self, on_start=lambda: None):
        self.shapes, self.rows, self.events = [], [], []
        self.on_start = on_start

    def __call__(self, samples, num_samples, positions):
        number = len(self.shapes)
        self.shapes.append(samples.shape)
        self.rows.append(int(np.count_nonzero(num_samples)))
        self.events.append(f"start {number}")
        self.on_start()

        def wait():
            self.events.append(f"end {number}")
            labels = samples[:, :1].astype(np.int32)
            ones, zeros = np.ones(len(labels), np.int32), np.zeros(labels.shape, np.float32)
            return Hypothesis(labels, ones, labels, labels, zeros, zeros, ones)

        return wait


def recording(number, *seconds):
    """Windows of such lengths; the first sample of each is 100 number + its place."""
    for place, length in enumerate(seconds):
        samples = np.full(round(length * RATE), 100 * number + place, np.float32)
        first = sum(len_ for len_ in (round(x * RATE) for x in seconds[:place]))
        yield Window(samples, first, first, first + len(samples))


def broken(number, *seconds):
    yield from recording(number, *seconds)
    raise OSError("the disk is gone")


def run(recordings, decoder=None, **options):
    return decode_recordings(recordings, SHAPES, decoder or Decoder(), sample_rate=RATE, **options)


def labels(windows):
    return [int(window.hypothesis.labels[0]) for window in windows]


def test_rows_are_padded_to_a_shape():
    batch, sizes = pad_rows([np.ones(3), np.full(1300, 2)], Shape(1.5, 3), 1000)
    assert batch.shape == (3, 2560) and batch.dtype == np.float32  # 1500, up to a multiple of 1280
    assert sizes.tolist() == [3, 1300, 0] and sizes.dtype == np.int32
    np.testing.assert_array_equal(batch.sum(axis=1), [3, 2600, 0])
    assert Shape(2.56, 1).num_samples(16000) == 40960


def test_each_recording_has_its_windows_in_order():
    lengths = [(1.0, 2.0, 0.5), (0.3,), (3.0, 3.0), (0.1, 0.1, 0.1, 2.5, 0.1), (1.0,)]
    done = []
    results = dict(run((recording(i, *x) for i, x in enumerate(lengths)), progress=done.append))
    assert sorted(results) == list(range(len(lengths)))
    for number, windows in results.items():
        expected = list(recording(number, *lengths[number]))
        assert labels(windows) == [100 * number + place for place in range(len(expected))]
        for window, whole in zip(windows, expected, strict=True):
            assert window.num_samples == len(whole.samples)
            assert (window.start, window.last) == (whole.start / RATE, whole.last / RATE)
    assert sum(done) == pytest.approx(sum(map(sum, lengths)))


def test_windows_of_like_length_share_batches_of_few_shapes():
    decoder = Decoder()
    lengths = [0.2, 1.0, 2.0, 0.9, 3.0, 1.0, 1.1]
    list(run((recording(i, x) for i, x in enumerate(lengths)), decoder))
    shapes = [(shape.rows, shape.num_samples(RATE)) for shape in SHAPES]
    assert set(decoder.shapes) <= set(shapes)
    # the first pair of long ones, the four short ones, and the long one that is left by itself
    assert decoder.shapes == [shapes[3], shapes[1], shapes[2]] and decoder.rows == [2, 4, 1]


def test_a_batch_is_decoded_while_the_next_is_filled():
    decoder = Decoder()
    list(run((recording(i, 1.0) for i in range(16)), decoder))
    assert decoder.events == [
        "start 0", "start 1", "end 0", "start 2", "end 1", "start 3", "end 2", "end 3",
    ]  # fmt: skip


def test_results_come_when_their_last_window_is_decoded():
    order = [position for position, _ in run(recording(i, 1.0, 1.0) for i in range(9))]
    assert order == list(range(9))
    late = [recording(0, 3.0, 1.0), *(recording(i, 1.0) for i in range(1, 8))]
    results = run(late)
    assert [position for position, _ in itertools.islice(results, 3)] == [1, 2, 3]
    assert sorted(position for position, _ in results) == [0, 4, 5, 6, 7]


def test_a_window_of_a_rare_length_does_not_wait_for_long():
    decoder = Decoder()
    order = [position for position, _ in run([recording(0, 3.0), *_many(60)], decoder)]
    assert order.index(0) <= 20  # four times the rows of the largest batch, and one batch more
    assert decoder.shapes.count((1, 3 * RATE)) == 1 and sorted(order) == list(range(61))


def _many(count):
    return (recording(i, 1.0) for i in range(1, count + 1))


def test_omitted_silence_offsets_what_is_behind_it():
    window = Window(
        np.zeros(RATE), 2 * RATE, 0, 9 * RATE, ((RATE // 4, RATE), (RATE // 2, RATE * 3))
    )
    ((_, (decoded,)),) = run([[window]])
    assert [decoded.offset(seconds) for seconds in (0.2, 0.25, 0.4, 0.5, 1e9)] == [2, 3, 3, 5, 5]
    assert decoded.last == 9.0


def test_a_recording_that_fails_is_an_error_and_the_others_finish():
    recordings = [recording(0, 1.0, 2.0), broken(1, 1.0, 3.0, 1.0), broken(2), recording(3, 1.0)]
    results = dict(run(recordings))
    assert labels(results[0]) == [0, 1] and labels(results[3]) == [300]
    for position in (1, 2):
        assert isinstance(results[position], OSError)
        assert str(results[position]) == "the disk is gone"


def test_no_window_is_decoded_after_the_results_of_a_failure():
    """One that is at work when its recording fails is dropped."""
    results = list(run([broken(0, *[1.0] * 6), recording(1, 1.0)]))
    assert [position for position, _ in results] == [0, 1]


def test_an_iterable_of_recordings_that_fails_fails():
    def recordings():
        yield recording(0, 1.0)
        raise RuntimeError("no more names")

    with pytest.raises(RuntimeError, match="no more names"):
        list(run(recordings()))


def test_a_decoder_that_fails_fails_and_nothing_is_read_on():
    def fail():
        raise MemoryError

    seen = []
    with pytest.raises(MemoryError):
        list(run(_watched(seen, 1000), Decoder(on_start=fail)))
    assert len(seen) <= 4 + AHEAD + 1


def test_no_recordings_give_nothing():
    assert list(run([])) == []
    assert list(run([iter([])])) == [(0, [])]


def _watched(seen, count, pause=0.0):
    """Recordings of a window, each noted when it is read, which takes `pause` seconds."""
    for number in range(count):
        time.sleep(pause)
        seen.append(number)
        yield recording(number, 1.0)


def test_reading_ahead_is_bounded():
    seen = []
    results = run(_watched(seen, 1000))
    for _ in range(3):
        next(results)
        time.sleep(0.02)  # for the thread to read on, if it would
    # two batches at work, the first of which is given out, and what is read ahead
    assert len(seen) <= 8 + AHEAD + 1
    results.close()
    count = len(seen)
    time.sleep(0.02)
    assert len(seen) == count < 20


def test_memory_is_bounded_whatever_the_length_and_the_number():
    """Of one recording of 300 windows and of 300 recordings the samples of a few are alive."""
    alive, most = weakref.WeakSet(), []

    def watched(windows):
        for window in windows:
            alive.add(window)
            most.append(len(alive))
            yield window
            del window

    for lengths in ([[1.0] * 300], [[1.0]] * 300):
        for _, windows in run(watched(recording(i, *x)) for i, x in enumerate(lengths)):
            assert len(windows) == len(lengths[0])
    gc.collect()
    assert len(most) == 600 and max(most) <= 4 + 2 * 4 + AHEAD + 2 and not alive


def test_recordings_are_read_in_one_other_thread():
    threads = set()

    def watched(number):
        threads.add(threading.get_ident())
        yield from recording(number, 1.0)

    list(run(watched(i) for i in range(20)))
    assert len(threads) == 1 and threading.get_ident() not in threads


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit])
def test_an_interrupt_ends_the_reading(error):
    """At once, though the traceback keeps what was at work."""
    seen, threads = [], threading.active_count()
    results = run(_watched(seen, 1000, pause=0.02))
    next(results)
    before = len(seen)
    with pytest.raises(error) as caught:
        results.throw(error)
    assert caught.traceback and len(seen) <= before + 2
    assert threading.active_count() == threads


def test_reading_ahead_keeps_the_order_and_gives_errors_in_their_place():
    assert list(read_ahead(range(100), 4)) == list(range(100))

    def items():
        yield 1
        raise OSError

    ahead = read_ahead(items(), 4)
    assert next(ahead) == 1
    with pytest.raises(OSError):
        next(ahead)


def test_what_was_to_be_read_ahead_is_not_read_after_the_end():
    taken, gate = [], threading.Event()

    def items():
        for i in range(10):
            taken.append(i)
            if i:
                gate.wait(10)
            yield i

    ahead = read_ahead(items(), 4)
    assert next(ahead) == 0
    threading.Timer(0.05, gate.set).start()
    ahead.close()  # waits for the item that is being made, and cancels the others
    assert len(taken) <= 2
