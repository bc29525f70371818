"""What ``fedaq doctor server`` checks."""

import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from fedaq.cli.checkup import (
    Finding,
    certificates,
    disk,
    look,
    machine,
    memory,
    ok,
    survived,
    wrong,
)
from fedaq.cli.wording import sentence_of
from fedaq.codec.model import spec_of
from fedaq.errors import UserError
from fedaq.net.credentials import is_loopback, server_certificates
from fedaq.net.ports import bound
from fedaq.settings import Settings
from fedaq.tasks import initial_model, load_task
from fedaq_server.identity.access import access_of

# What a server has open besides one connection for each client.
OWN_FILES = 60
# Of the model, float32: that of the last round, the next one, and the final one.
MODELS_ON_DISK = 3


def server_findings(settings: Settings, out: Path | None) -> Iterator[Finding]:
    """Check one thing after the other."""
    yield from machine()
    yield from survived("identity", lambda: _access(settings))
    yield from survived("port", lambda: port(settings.network.host, settings.network.port))
    limit = file_limit()
    if limit is not None:
        yield open_files(settings.clients, limit)
    yield from survived("task", lambda: _task(settings, out))


def port(host: str, number: int) -> Finding:
    """Find out whether the server could listen there."""
    try:
        with bound(host, number):
            pass
    except OSError as error:
        return wrong(
            "port",
            f"{host}:{number}: {error.strerror}",
            "another --port; or is a server running already? An address must be this "
            "machine's: --host 0.0.0.0 is all of them",
        )
    if is_loopback(host):
        return look(
            "port",
            f"{host}:{number} is free, and reached from this machine only",
            "for clients on other machines: --host 0.0.0.0",
        )
    return ok("port", f"{host}:{number} is free")


def file_limit() -> int | None:
    """Return how many files this process may have open; None where sockets are no files."""
    try:
        resource = import_module("resource")
    except ImportError:  # Windows
        return None
    limit: int = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return limit


def open_files(clients: int, limit: int) -> Finding:
    """Compare the limit of open files with the connections of so many clients."""
    needed = OWN_FILES + clients
    says = f"{limit} allowed, {clients} clients need about {needed}"
    if needed > limit:
        return wrong("open files", says, "raise it: ulimit -n, or LimitNOFILE= of the unit")
    return ok("open files", says)


def _access(settings: Settings) -> Iterator[Finding]:
    network = settings.network
    try:
        access_of(network)
        own = None if network.tls is None else server_certificates(network.tls)
    except UserError as error:
        yield wrong("identity", str(error))
        return
    if own is not None:
        yield certificates(own, time.time())
        clients_prove = "a token" if network.tokens else "a certificate"
        yield ok("clients", f"each proves who it is by {clients_prove}")
    elif network.tokens is not None:
        yield look("clients", "tokens without TLS can be overheard", "--tls FOLDER: fedaq certs")
    elif is_loopback(network.host):
        yield ok("clients", "anybody on this machine may join")
    else:
        yield look("clients", "anybody may join, and read along", "--tls FOLDER: fedaq certs")


def _task(settings: Settings, out: Path | None) -> Iterator[Finding]:
    try:
        task = load_task(settings.task, settings.data)
        module = initial_model(task, settings.seed)
        parameters = spec_of(module, task.classes).parameters
        test_data = task.test_data(settings.data)
        began = time.monotonic()
        task.evaluate(module, test_data)
    except Exception as error:
        yield wrong("task", sentence_of(error), f"fedaq check-task {settings.task} says more")
        return
    seconds = time.monotonic() - began
    yield ok("task", f"{settings.task}: tested after each round, which takes {seconds:.1f} s")
    yield memory(parameters)
    folder = out or Path("runs")
    yield disk(folder, MODELS_ON_DISK * 4 * parameters, "a run, without differences,")
