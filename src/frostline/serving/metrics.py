"""What a server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Metrics:
    """A registry of its own, so that several servers may run in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "frostline_requests", "Requests by path and status", ["path", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "frostline_request_seconds",
            "Seconds from a request's header to its answer",
            ["path"],
            registry=self.registry,
            buckets=_SECONDS,
        )
        self._photos = Counter("frostline_photos", "Photos by outcome", ["outcome"], registry=self.registry)
        self._model = Gauge("frostline_model", "1 for the model in use", ["id", "strategy"], registry=self.registry)

    def gauge(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """A gauge whose value is read when the metrics are asked for."""
        Gauge(f"frostline_{name}", help_text, registry=self.registry).set_function(value)

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def photo(self, outcome: str) -> None:
        """Count a photo: `ok`, or the code of its refusal."""
        self._photos.labels(outcome).inc()

    def model(self, name: str, strategy: str) -> None:
        """Another model is in use."""
        self._model.clear()
        self._model.labels(name, strategy).set(1)

    def text(self) -> bytes:
        """All metrics in the text format of Prometheus."""
        return generate_latest(self.registry)
