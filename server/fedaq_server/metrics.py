"""What Prometheus may ask about a run."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    start_http_server,
)

from fedaq.errors import ProtocolError, UserError, reason_name
from fedaq.v1 import federation_pb2 as pb
from fedaq_server.records.record import RoundRecord

# Seconds: from a round of a small model on one machine to the deadline of a large one.
BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)


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
        server, thread = start_http_server(port, host, metrics.registry)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"metrics: cannot listen on {host}:{port}: {error}; choose another with "
            "--metrics-port or --set network.metrics_host=..."
        ) from None
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
