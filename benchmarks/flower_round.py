"""The round of round.py in Flower 1.42.0; peers.py runs it, in an environment without fedaq.

    python flower_round.py server PORT CLIENTS ROUNDS PARAMETERS OUT
    python flower_round.py client PORT

`start_server` with FedAvg and `start_client` with a NumPyClient, the model as NumPy arrays.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import flwr as fl
import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "server"))
from fedaq_server.transport.tcp_counter import SocketCounter

LAYERS = 8
SHRINK = np.float32(0.99)


def initial_weights(parameters: int) -> list[Any]:
    """Return the tensors that idle_task.py has: square matrices and their biases."""
    side = round((parameters / LAYERS) ** 0.5)
    draw = np.random.default_rng(1)
    shapes = [(side, side), (side,)] * LAYERS
    return [draw.standard_normal(shape, np.float32) for shape in shapes]


class TimedFedAvg(fl.server.strategy.FedAvg):  # type: ignore[misc]
    """FedAvg that notes the seconds and the bytes from each round's begin to its end."""

    def __init__(self, port: int, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.rounds: list[dict[str, float]] = []
        self._wire = SocketCounter(port)

    def configure_fit(self, server_round: int, parameters: Any, client_manager: Any) -> Any:
        client_manager.wait_for(self.min_available_clients)
        self._wire.sample()
        self._began = time.monotonic()
        return super().configure_fit(server_round, parameters, client_manager)

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        assert len(results) == self.min_available_clients
        aggregated = super().aggregate_fit(server_round, results, failures)
        seconds = time.monotonic() - self._began
        wire = self._wire.sample()
        assert wire is not None
        self.rounds.append(
            {"seconds": seconds, "uplink_bytes": wire.uplink, "downlink_bytes": wire.downlink}
        )
        return aggregated


class IdleClient(fl.client.NumPyClient):  # type: ignore[misc]
    """A client whose training shrinks every weight, as that of idle_task.py."""

    def fit(self, parameters: Any, config: Any) -> tuple[list[Any], int, dict[str, Any]]:
        return [weights * SHRINK for weights in parameters], 64, {}


def serve(port: int, clients: int, rounds: int, parameters: int, out: str) -> None:
    strategy = TimedFedAvg(
        port,
        fraction_fit=1.0,
        fraction_evaluate=0.0,
        min_fit_clients=clients,
        min_available_clients=clients,
        initial_parameters=fl.common.ndarrays_to_parameters(initial_weights(parameters)),
    )
    fl.server.start_server(
        server_address=f"127.0.0.1:{port}",
        config=fl.server.ServerConfig(num_rounds=rounds),
        strategy=strategy,
    )
    Path(out).write_text(json.dumps(strategy.rounds))


if __name__ == "__main__":
    if sys.argv[1] == "server":
        port, clients, rounds, parameters = map(int, sys.argv[2:6])
        serve(port, clients, rounds, parameters, sys.argv[6])
    else:
        fl.client.start_client(
            server_address=f"127.0.0.1:{sys.argv[2]}", client=IdleClient().to_client()
        )
