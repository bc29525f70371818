"""What ``fedaq doctor server`` checks."""

import time
from collections.abc import Iterator
from math import sqrt
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
from fedaq.errors import UserError
from fedaq.net.addresses import is_loopback, joined
from fedaq.net.credentials import server_certificates
from fedaq.net.ports import why_not
from fedaq.settings import Settings
from fedaq.tasks import evaluated, initial_model, load_task, read_data, signature_of
from fedaq_server.identity.access import access_of
from fedaq_server.privacy.account import PrivacyAccount
from fedaq_server.privacy.release import private_values
from fedaq_server.transport import open_files

# Of the model, float32: that of the last round, the next one, and the final one.
MODELS_ON_DISK = 3
# Noise in the mean that is longer than so many of the longest updates is worth a look
# (docs/explanation/differential-privacy.md).
LOUD = 10.0
# Of a clip that adapts: whatever it begins with, noise is in proportion to it.
FIRST_CLIP = 1.0


def server_findings(settings: Settings, out: Path | None) -> Iterator[Finding]:
    """Check one thing after the other."""
    yield from machine()
    yield from survived("identity", lambda: _access(settings))
    yield from survived("port", lambda: port(settings.network.host, settings.network.port))
    yield from survived("open files", lambda: _files(settings))
    yield from survived("task", lambda: _task(settings, out))


def _files(settings: Settings) -> Iterator[Finding]:
    open_files.raise_limit()  # as a server does
    if (files := open_files.limit()) is not None:
        yield room(settings, files)


def port(host: str, number: int) -> Finding:
    """Find out whether the server could listen there."""
    address, reason = joined(host, number), why_not(host, number)
    if reason is not None:
        return wrong(
            "port",
            f"{address}: {reason}",
            "another --port; or is a server running already? An address must be this "
            "machine's: --host 0.0.0.0 is all of them",
        )
    if is_loopback(host):
        return look(
            "port",
            f"{address} is free, and reached from this machine only",
            "for clients on other machines: --host 0.0.0.0",
        )
    return ok("port", f"{address} is free")


def room(settings: Settings, files: int) -> Finding:
    """Find out whether a limit of open files leaves room for the clients."""
    most = open_files.most_clients(settings, files)
    says = f"{files} allowed, room for {most} clients"
    if most < settings.clients:
        return wrong(
            "open files", f"{says}, {settings.clients} are wanted",
            "raise it: ulimit -n, or LimitNOFILE= of the unit",
        )  # fmt: skip
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
        module = initial_model(task, settings.seed, settings.start_from)
        spec = signature_of(task, module)
        test_data = read_data(task, "test_data", settings.data)
        began = time.monotonic()
        evaluated(task, module, test_data)
    except Exception as error:
        yield wrong("task", sentence_of(error), f"fedaq check-task {settings.task} says more")
        return
    seconds = time.monotonic() - began
    yield ok("task", f"{settings.task}: tested after each round, which takes {seconds:.1f} s")
    yield memory(spec.parameters)
    folder = out or Path("runs")
    yield disk(folder, MODELS_ON_DISK * 4 * spec.parameters, "a run, without differences,")
    if settings.is_private:
        yield privacy(settings, private_values(spec))


def privacy(settings: Settings, values: int) -> Finding:
    """Find out whether a budget of epsilon can be met, and what its noise does to the model.

    Parameters
    ----------
    settings : Settings
        With an epsilon.
    values : int
        Of an update.
    """
    own, rounds, clients = settings.privacy, settings.rounds, settings.taking_part
    try:
        account = PrivacyAccount.of(settings, {}, FIRST_CLIP, values)
    except UserError as error:
        return wrong("privacy", str(error))
    assert account is not None
    multiplier = account.multiplier
    loud = multiplier * sqrt(values) / clients
    says = (
        f"epsilon {own.epsilon:g} for delta {own.delta:g} in {rounds} rounds: noise of "
        f"{multiplier:.3g} times the clip; in the mean of {clients} clients it is {loud:.3g} times "
        "as long as the longest update"
    )
    if loud > LOUD:
        return look(
            "privacy",
            says,
            "such noise drowns most updates: more clients a round, fewer rounds, a smaller model, "
            "or a larger privacy.epsilon",
        )
    if not own.secure_aggregation:
        return look(
            "privacy",
            f"{says}; the server adds it, and sees each update",
            "clients add it: --set privacy.secure_aggregation=true",
        )
    return ok("privacy", f"{says}; each client adds its share")
