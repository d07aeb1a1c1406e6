"""Prometheus metrics: requests, latency, batches, queue, predictions by status, and drift."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from likely.inference.drift import Drift
from likely.prediction import Prediction
from likely.server.http.batching import BatchStats

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Metrics of one application."""

    def __init__(self, waiting: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        here = self.registry
        self._requests = Counter("likely_requests", "Requests.", ["method", "route", "status"], registry=here)
        self._latency = Histogram(
            "likely_request_seconds", "Duration of a request in seconds.", ["route"], buckets=SECONDS, registry=here
        )
        self._sizes = Histogram("likely_batch_images", "Images in a batch.", buckets=SIZES, registry=here)
        self._waited = Histogram(
            "likely_queue_wait_seconds",
            "Seconds that the first image of a batch waited.",
            buckets=SECONDS,
            registry=here,
        )
        self._predictions = Counter("likely_predictions", "Predictions by status.", ["model", "status"], registry=here)
        self._drift = Gauge(
            "likely_drift",
            "Kolmogorov-Smirnov statistic of recent p-values against validation.",
            ["model"],
            registry=here,
        )
        self._has_drifted = Gauge(
            "likely_drift_detected", "1 if the drift is significant and large.", ["model"], registry=here
        )
        queue = Gauge("likely_inflight_images", "Images in flight.", registry=here)
        queue.set_function(waiting)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a finished request."""
        self._requests.labels(method, route, str(status)).inc()
        self._latency.labels(route).observe(seconds)

    def batch(self, batched: BatchStats) -> None:
        """Count a batch."""
        self._sizes.observe(batched.n)
        self._waited.observe(batched.wait)

    def predictions(self, model: str, predictions: Sequence[Prediction]) -> None:
        """Count predictions of a model version by status."""
        for prediction in predictions:
            self._predictions.labels(model, prediction.status.value).inc()

    def drift(self, model: str, drift: Drift) -> None:
        """Set the drift of a model version."""
        self._drift.labels(model).set(drift.difference)
        if drift.has_drifted is not None:
            self._has_drifted.labels(model).set(drift.has_drifted)

    def text(self) -> bytes:
        """Return all metrics in Prometheus text format."""
        return generate_latest(self.registry)
