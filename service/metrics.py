"""Figures for Prometheus, of one application: requests, latencies, queue, encodings, decisions."""

from collections.abc import Callable
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0, 15.0, 30.0)
"""Seconds. Encoding 3 s of speech takes about 0.05; waiting in a full queue some seconds."""

METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}
"""Methods that are counted by name: a client could invent any number of others."""


class Metrics:
    """What the service counts. Labels never hold names of speakers, tokens or addresses."""

    def __init__(
        self,
        queue_depth: Callable[[], int],
        num_damaged: Callable[[], int] = lambda: 0,
        num_jobs: Callable[[], int] = lambda: 0,
    ) -> None:
        """Makes the figures; three of them are asked for by functions when they are read."""
        self._registry = CollectorRegistry()
        make: dict[str, Any] = {"registry": self._registry, "namespace": "voiceprint"}
        self.requests = Counter(
            "requests", "Answered requests", ["method", "route", "status"], **make
        )
        self.latency = Histogram(
            "request_seconds",
            "Seconds from a request to its answer",
            ["method", "route"],
            buckets=LATENCY_BUCKETS_S,
            **make,
        )
        self.in_flight = Gauge("requests_in_flight", "Requests that are being answered", **make)
        depth = Gauge("queue_depth", "Recordings that run or wait for the encoder", **make)
        depth.set_function(queue_depth)
        damaged = Gauge("damaged_speakers", "Speakers whose stored voice is damaged", **make)
        damaged.set_function(num_damaged)
        self.other_models = Gauge(
            "other_model_recordings",
            "Recordings that only other models have embedded",
            ["sound"],
            **make,
        )
        jobs = Gauge("diarizations", "Long recordings that run or wait", **make)
        jobs.set_function(num_jobs)
        self.streams = Gauge("streams", "Live streams that are open", **make)
        self.encodings = Histogram(
            "encoding_seconds",
            "Seconds to decode, measure and embed a recording",
            buckets=LATENCY_BUCKETS_S,
            **make,
        )
        self.audit_gaps = Counter(
            "audit_gaps", "Decisions whose line of the audit log could not be written", **make
        )
        self.decisions = Counter("decisions", "Answers", ["kind", "outcome"], **make)

    def observe_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts an answered request; `route` is the template of its path."""
        method = method if method in METHODS else "other"
        self.requests.labels(method, route, str(status)).inc()
        self.latency.labels(method, route).observe(seconds)

    def render(self) -> bytes:
        """Returns all figures in Prometheus's text format."""
        return generate_latest(self._registry)
