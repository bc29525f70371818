"""What ``fedaq doctor`` checks on either side, and how it shows what it found."""

import os
import platform
import shutil
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import psutil
import typer

from fedaq.cli.wording import sentence_of
from fedaq.codec import kernels
from fedaq.errors import FedaqError
from fedaq.net.credentials import Certificates
from fedaq.process.limits import free_memory, usable_cores
from fedaq.process.terminal import console, foreign

MARKS = {"ok": "[green]✓[/green]", "look": "[yellow]![/yellow]", "wrong": "[red]✗[/red]"}
# gRPC's, torch's and ours together stay below.
THREADS = 24
# Of float32 weights, beside those that are loaded: what is held of the run, gradients, momentum,
# and a server's sums. docs/research/benchmarks-speed.md measures less.
MODELS_BESIDE = 4
# A need for more than this share of what is there is called tight.
TIGHT = 0.8
LOAD_PER_CORE = 1.5
EXPIRES_SOON_S = 30 * 86400
# Where a Pi without a clock begins, or a disk image was made.
EARLIEST_S = time.mktime((2025, 1, 1, 0, 0, 0, 0, 0, 0))
# docs/reference/other-systems.md says the same, and what each lacks.
TESTED = {
    ("Linux", "x86_64"): "FedAQ is made for it and tested on it",
    ("Linux", "aarch64"): "FedAQ is made for it; a client was tested on an emulated one",
}
ONLY_BUILT = {
    ("Darwin", "arm64"): "macOS",
    ("Darwin", "x86_64"): "macOS",
    ("Windows", "AMD64"): "Windows",
}


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes
    ----------
    subject : str
    verdict : str
    says : str
        What is there.
    remedy : str
        What to do, if anything.
    """

    subject: str
    verdict: Literal["ok", "look", "wrong"]
    says: str
    remedy: str = ""


def ok(subject: str, says: str) -> Finding:
    """Return a finding that asks for nothing."""
    return Finding(subject, "ok", says)


def look(subject: str, says: str, remedy: str) -> Finding:
    """Return a finding that may do harm later."""
    return Finding(subject, "look", says, remedy)


def wrong(subject: str, says: str, remedy: str = "") -> Finding:
    """Return a finding with which nothing works; most errors say themselves what to do."""
    return Finding(subject, "wrong", says, remedy)


def show(findings: Iterable[Finding]) -> None:
    """Print findings as they come.

    Raises
    ------
    typer.Exit
        With 1, if any of them is wrong.
    """
    count = 0
    for finding in findings:
        console.print(
            f"{MARKS[finding.verdict]} [bold]{finding.subject:13}[/bold]{foreign(finding.says)}"
        )
        if finding.remedy:
            console.print(f"{'':15}→ {foreign(finding.remedy)}")
        count += finding.verdict == "wrong"
    if count:
        console.print(f"[red]{count} must be put right before this can work[/red]")
        raise typer.Exit(1)
    console.print("[green]nothing is in the way[/green]")


def survived(subject: str, check: Callable[[], Finding | Iterable[Finding]]) -> Iterator[Finding]:
    """Yield what a check finds; that it could not be made is a finding, too."""
    try:
        found = check()
        yield from [found] if isinstance(found, Finding) else found
    except Exception as error:
        yield wrong(subject, sentence_of(error))


def of_side(load: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """Yield what a side finds, or why not even its modules could be loaded."""
    try:
        found = load()
    except Exception as error:
        yield from machine()
        yield wrong("packages", sentence_of(error))
    else:
        yield from found


def machine() -> Iterator[Finding]:
    """Check what depends on nothing but this machine."""
    yield from survived("system", lambda: system(platform.system(), platform.machine()))
    yield from survived("versions", versions)
    yield from survived("clock", lambda: clock(time.time()))
    yield from survived("cores", lambda: cores(usable_cores(), psutil.getloadavg()[0]))
    yield from survived("threads", threads)
    yield from survived("codec", codec)


def system(name: str, processor: str) -> Finding:
    """Say whether FedAQ is meant for a system and tested there, or only built for it."""
    known = ONLY_BUILT.get((name, processor))
    says = f"{known or name} on {processor}"
    if (name, processor) in TESTED:
        return ok("system", f"{says}: {TESTED[name, processor]}")
    state = "built for it, and was never run there" if known else "neither built nor tested for it"
    return look("system", f"{says}: FedAQ is {state}", "docs/reference/other-systems.md says more")


def versions() -> Finding:
    """Name what is installed; refuse 32 bits, for which there is no torch."""
    names = ", ".join(f"{name} {version(name)}" for name in ("fedaq", "torch", "numpy", "grpcio"))
    bits = 8 * struct.calcsize("P")
    says = f"{names}, Python {platform.python_version()}, {platform.machine()}, {bits} bits"
    if bits != 64:
        return wrong("versions", says, "install the 64-bit operating system")
    return ok("versions", says)


def clock(now_s: float) -> Finding:
    """Find a clock that was never set: certificates would seem not to be valid yet."""
    says = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now_s))
    if now_s < EARLIEST_S:
        return wrong("clock", says, "set it: sudo timedatectl set-ntp true, or sudo date --set=...")
    return ok("clock", says)


def cores(usable: float, load: float) -> Finding:
    """Say how many cores there are, and whether others keep them busy."""
    says = f"{usable:g} to use, load {load:.1f}"
    if load > LOAD_PER_CORE * usable:
        return look("cores", says, "something else works here; rounds will take longer (see: top)")
    return ok("cores", says)


def threads(count: int = THREADS) -> Finding:
    """Start as many threads as a side may have at once."""
    over = threading.Event()
    started = []
    try:
        for _ in range(count):
            thread = threading.Thread(target=over.wait, daemon=True)
            thread.start()
            started.append(thread)
    except RuntimeError:
        return wrong(
            "threads",
            f"no more than {len(started)} of {count} could be started",
            "raise the limit: ulimit -u, LimitNPROC= or TasksMax= of the unit, --pids-limit of "
            "the container",
        )
    finally:
        over.set()
        for thread in started:
            thread.join()
    return ok("threads", f"{count} can be started")


def codec() -> Finding:
    """Run the compiled loops once, and say which instructions they use."""
    try:
        kernels.statistics(np.ones(1, np.float32))
    except FedaqError as error:
        return wrong("codec", str(error), "its library belongs to the package")
    return ok("codec", f"compiled for {kernels.levels()[0]} instructions")


def certificates(own: Certificates, now_s: float) -> Finding:
    """Say whom the certificate in a folder is for, and for how long."""
    left_s = own.expires_s - now_s
    says = f"{own.folder}: {own.name or 'only the authority, no name of its own'}"
    if not own.name:
        return ok("certificates", says)
    says += f", valid for {left_s // 86400:.0f} days"
    if left_s < EXPIRES_SOON_S:
        return look(
            "certificates", says, "make a new one soon: fedaq certs, see docs/how-to/security.md"
        )
    return ok("certificates", says)


def memory(parameters: int) -> Finding:
    """Compare what a model of so many parameters needs with what is free.

    The model and the data are loaded already.
    """
    needed, free = 4.0 * parameters * MODELS_BESIDE, free_memory()
    says = (
        f"{parameters:,} parameters: about {needed / 1e6:,.0f} MB more beside the "
        f"{resident_bytes() / 1e6:,.0f} MB of this process, and {free / 1e6:,.0f} MB are free"
    )
    remedy = "take a smaller model or raise the limit (MemoryMax=, mem_limit); " \
        "swap makes it possible, and slow"  # fmt: skip
    if needed > free:
        return wrong("memory", says, remedy)
    if needed > TIGHT * free:
        return look("memory", says, remedy)
    return ok("memory", says)


def disk(folder: Path, needed: int, what: str) -> Finding:
    """Check that a folder, or the one in which it will be made, takes so many bytes.

    Parameters
    ----------
    folder : Path
    needed : int
    what : str
        For whom, in words.
    """
    there = next(place for place in (folder.absolute(), *folder.absolute().parents)
                 if place.exists())  # fmt: skip
    free = shutil.disk_usage(there).free
    says = f"{folder}: {free / 1e6:,.0f} MB free; {what} takes about {needed / 1e6:,.0f} MB"
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        return wrong("disk", f"{folder}: cannot be written", "choose another folder, or its owner")
    if needed > free:
        return wrong("disk", says, "make room, or choose another disk")
    return ok("disk", says)


def resident_bytes() -> int:
    """Return the memory that this process takes."""
    return int(psutil.Process().memory_info().rss)
