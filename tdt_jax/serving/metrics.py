"""What a server counts, in Prometheus' text format."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The counters of one server."""

    def __init__(self):
        self.registry = CollectorRegistry()
        registry = self.registry
        ProcessCollector(registry=registry)  # CPU time and memory, on Linux
        self.requests = Counter(
            "tdt_requests", "Answered requests", ["path", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "tdt_request_seconds", "Time of a request", ["path"], buckets=SECONDS, registry=registry
        )
        self.audio_seconds = Counter(
            "tdt_audio_seconds", "Seconds of audio transcribed", ["kind"], registry=registry
        )
        self.live_streams = Gauge("tdt_live_streams", "Live streams", registry=registry)
        self.live_slots = Gauge("tdt_live_slots", "Most live streams at a time", registry=registry)
        self.waiting_seconds = Gauge(
            "tdt_waiting_seconds", "Seconds of audio that wait to be transcribed", registry=registry
        )
        self.batch_rows = Histogram(
            "tdt_batch_rows", "Windows in a batch", buckets=ROWS, registry=registry
        )
        self.step_streams = Histogram(
            "tdt_step_streams", "Live streams decoded in a step", buckets=ROWS, registry=registry
        )
        self.step_seconds = Histogram(
            "tdt_step_seconds",
            "Time of a step of the live streams",
            buckets=SECONDS,
            registry=registry,
        )
        self.failures = Counter(
            "tdt_device_failures", "Steps and batches that have failed", registry=registry
        )

    def text(self) -> bytes:
        """Returns all counters."""
        return generate_latest(self.registry)
