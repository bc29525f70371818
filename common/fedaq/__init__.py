"""Federated learning for devices that pay for every bit they send.

Here are the names that programs use; what they need is imported when they are used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fedaq.exports import exported

if TYPE_CHECKING:
    from fedaq.declines import Decline
    from fedaq.errors import FedaqError, UserError
    from fedaq.metric import Metric
    from fedaq.settings import Options, Settings
    from fedaq.tasks import Evaluation, Examples, Task, Training, TrainingContext
    from fedaq_client.client import Client
    from fedaq_lab.comparing import Comparison, compare
    from fedaq_lab.running import arun, run
    from fedaq_server.records.result import Result, load
    from fedaq_server.server import RoundEnd, Server

__version__ = "0.1.0"
PROTOCOL_VERSION = 4

_HOMES = {
    "Client": "fedaq_client.client",
    "Comparison": "fedaq_lab.comparing",
    "Decline": "fedaq.declines",
    "Evaluation": "fedaq.tasks",
    "Examples": "fedaq.tasks",
    "FedaqError": "fedaq.errors",
    "Metric": "fedaq.metric",
    "Options": "fedaq.settings",
    "Result": "fedaq_server.records.result",
    "RoundEnd": "fedaq_server.server",
    "Server": "fedaq_server.server",
    "Settings": "fedaq.settings",
    "Task": "fedaq.tasks",
    "Training": "fedaq.tasks",
    "TrainingContext": "fedaq.tasks",
    "UserError": "fedaq.errors",
    "arun": "fedaq_lab.running",
    "compare": "fedaq_lab.comparing",
    "load": "fedaq_server.records.result",
    "run": "fedaq_lab.running",
}

__all__ = [
    "PROTOCOL_VERSION",
    "Client",
    "Comparison",
    "Decline",
    "Evaluation",
    "Examples",
    "FedaqError",
    "Metric",
    "Options",
    "Result",
    "RoundEnd",
    "Server",
    "Settings",
    "Task",
    "Training",
    "TrainingContext",
    "UserError",
    "__version__",
    "arun",
    "compare",
    "load",
    "run",
]


_found = exported(__name__, _HOMES)


def __getattr__(name: str) -> Any:
    if name == "Server":  # whose module imports gRPC
        import_module("fedaq.process.forks").allow_in_a_program()
    try:
        found = _found(name)
    except ModuleNotFoundError as error:
        side = "client" if name == "Client" else "server"
        raise ImportError(
            f"fedaq.{name} needs {error.name}: pip install 'fedaq[{side}]'"
        ) from error
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
