"""What Prometheus may ask about a run."""

import socket
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    make_wsgi_app,
)
from prometheus_client.exposition import ThreadingWSGIServer

from fedaq.declines import Reason
from fedaq.errors import ProtocolError, UserError, reason_name
from fedaq.net.addresses import joined
from fedaq.v1 import federation_pb2 as pb
from fedaq_server.records.record import RoundRecord

# Seconds: from a round of a small model on one machine to the deadline of a large one.
BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)
# Who asks for metrics: connections at a time, and seconds until one has said what it wants.
MOST_ASKING, ASK_S = 20, 10.0


class Metrics:
    """Counts of one run, in a registry of their own.

    No series is of a single client, so memory does not grow with their number.

    Parameters
    ----------
    budget_j : float, optional
        Joules for the whole run.
    spent_j : float
        What rounds before this process took of them.
    """

    def __init__(self, budget_j: float | None, spent_j: float = 0.0) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)

        def counter(name: str, meaning: str, *labels: str) -> Counter:
            return Counter(f"fedaq_{name}", meaning, labels, registry=registry)

        def gauge(name: str, meaning: str) -> Gauge:
            return Gauge(f"fedaq_{name}", meaning, registry=registry)

        def histogram(name: str, meaning: str, *labels: str) -> Histogram:
            return Histogram(f"fedaq_{name}", meaning, labels, registry=registry, buckets=BUCKETS)

        self.connected = gauge("connected_clients", "Clients that are connected.")
        self.joined = counter("joins", "Clients that were let in.")
        self.join_refused = counter(
            "join_refusals", "Streams ended by the server, by gRPC status.", "code"
        )
        self.refused = counter("refusals", "Refusals sent to clients within a run.", "reason")
        self.left_out = counter("left_out", "Clients a round went on without.", "reason")
        for reason in pb.RefusalReason.values()[1:]:  # at 0, so that their rates are known
            self.refused.labels(reason_name(reason))
            self.left_out.labels(reason_name(reason))
        self.left_out.labels("disconnected")
        self.left_out.labels("declined")
        self.declined = counter("declines", "Times that clients said they are not ready.", "reason")
        for each in Reason:
            self.declined.labels(each)
        self._rounds = counter("rounds", "Rounds that are over.")
        self._updates = counter("updates", "Updates that counted.")
        self._bytes = {
            f"{way}_{kind}_bytes": counter(f"{way}_{kind}_bytes", f"{meaning}, {way}.")
            for kind, meaning in (
                ("payload", "Tensor headers and codes"),
                ("wire", "Everything that crossed the sockets"),
            )
            for way in ("uplink", "downlink")
        }
        self._energy = counter("energy_joules", "Joules charged for payload bits.")
        self._test_metric = Gauge(
            "fedaq_test_metric",
            "What the test after the last round gave, by its name.",
            ["name"],
            registry=registry,
        )
        self._values = {
            "test_accuracy": gauge(
                "test_accuracy_ratio", "Test accuracy after the last round, 0 to 1."
            ),
            "test_loss": gauge("test_loss", "Test loss after the last round."),
            "train_loss": gauge("train_loss", "Mean training loss of the last round."),
            "uplink_bits": gauge("uplink_bits_per_value", "Mean bits per value, uplink."),
            "downlink_bits": gauge("downlink_bits_per_value", "Mean bits per value, downlink."),
        }
        self._round_seconds = histogram("round_seconds", "Whole rounds.")
        self._phase_seconds = histogram("phase_seconds", "Phases of a round.", "phase")
        self._budget_left = None
        if budget_j is not None:
            self._budget_left = gauge("energy_budget_left_joules", "Budget less joules charged.")
            self._budget_left.set(budget_j - spent_j)

    def phase(self, name: str) -> AbstractContextManager[object]:
        """Return a context whose duration is that of a phase of a round."""
        return self._phase_seconds.labels(name).time()

    def took(self, phase: str, seconds: float) -> None:
        """Count a phase of a round that lasted so long."""
        self._phase_seconds.labels(phase).observe(seconds)

    def on_refusal(self, error: ProtocolError) -> None:
        """Count a refusal."""
        self.refused.labels(reason_name(error.reason)).inc()

    def round_over(self, record: RoundRecord) -> None:
        """Count a finished round."""
        self._rounds.inc()
        self._updates.inc(record.clients)
        for name, counted in self._bytes.items():
            counted.inc(max(getattr(record, name) or 0, 0))
        self._energy.inc(record.energy_j)
        for name, gauge in self._values.items():
            gauge.set(getattr(record, name))
        for name, value in record.metrics.items():
            self._test_metric.labels(name).set(value)
        self._round_seconds.observe(record.seconds)
        if self._budget_left is not None:
            self._budget_left.dec(record.energy_j)


@contextmanager
def exposed(metrics: Metrics, host: str, port: int) -> Iterator[int]:
    """Answer Prometheus over HTTP within the block, on threads of its own; yield the port.

    Raises
    ------
    UserError
        If the port is taken or the address is not this machine's.
    """
    try:
        app = make_wsgi_app(metrics.registry)
        server = make_server(host, port, app, _Server, handler_class=_Asked)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"metrics: cannot listen on {joined(host, port)}: {error}; choose another with "
            "--metrics-port or --set network.metrics_host=..."
        ) from None
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingWSGIServer):
    """Answers on threads, of which there are not too many."""

    def __init__(self, address: tuple[str, int], handler: Any) -> None:
        self.address_family = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0][0]
        self._free = threading.Semaphore(MOST_ASKING)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a connection that breaks."""


class _Asked(WSGIRequestHandler):
    """Hangs up on who says nothing, and logs nothing."""

    timeout = ASK_S

    def log_message(self, format: str, *arguments: Any) -> None:
        """Log nothing."""
