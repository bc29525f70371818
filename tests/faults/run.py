"""A fault at every call of a run that touches its files, in turn, and what becomes of the run.

    python tests/faults/run.py

A library that is loaded before the C library lets one call fail: of Python, of SQLite, of whoever
else writes there. Then the run has to end as if nothing had been, or say what the system refused;
and when it is resumed, it has to come to the same model. Needs Linux and a C compiler.
"""

import argparse
import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from checks import Check, conclude
from faults.federation import ROUNDS, Job

HERE = Path(__file__).parent
ONCE, FULL, KILL = 1, 2, 3
# What the system may say to each kind of call.
ERRORS = {
    "open": (errno.EMFILE, errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EIO),
    "write": (errno.ENOSPC, errno.EIO, errno.EDQUOT),
    "fsync": (errno.EIO, errno.ENOSPC, errno.EDQUOT),
    "rename": (errno.EACCES, errno.ENOSPC, errno.EIO, errno.EROFS),
    "truncate": (errno.EIO, errno.EROFS),
    "unlink": (errno.EACCES, errno.EROFS, errno.EIO),
    "mkdir": (errno.EACCES, errno.ENOSPC, errno.EROFS),
}
# SQLite keeps the system's own words to itself.
OF_SQLITE = (
    "disk I/O error", "database or disk is full", "unable to open database file",
    "attempt to write a readonly database",
)  # fmt: skip
LASTING = {FULL: "the disk is full from a write on", KILL: "killed before a call"}
FINAL = "model.safetensors"


@dataclass(frozen=True)
class Tried:
    """A fault, and what became of the run.

    Attributes
    ----------
    call : str
        What failed, and of which file.
    fault : str
        What the system said.
    ended : bool
        Whether the run ended of it.
    wrong : str
        What should not have been; empty if all was well.
    """

    call: str
    fault: str
    ended: bool
    wrong: str


def compiled(folder: Path) -> Path:
    """Return the injector, compiled."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise SystemExit("a C compiler is needed: cc")
    library = folder / "inject.so"
    options = ("-O1", "-shared", "-fPIC", "-o", str(library), str(HERE / "inject.c"), "-ldl")
    subprocess.run([compiler, *options], check=True)
    return library


@dataclass(frozen=True)
class Federations:
    """The process that carries out the jobs, in a folder for their files."""

    folder: Path
    process: "subprocess.Popen[str]"

    def run(
        self, name: str, *, resume: bool = False, mode: int = 0, at: int = 0, error: int = 0
    ) -> tuple[int, str, list[str]]:
        """Carry out a run; return its exit code, what it said, and its calls."""
        log, out = files = [self.folder / f"{name}.{kind}" for kind in ("calls", "said")]
        for file in files:
            file.unlink(missing_ok=True)
        job = Job(str(self.folder / name), str(log), str(out), resume, mode, at, error)
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None
        stdin.write(json.dumps(asdict(job)) + "\n")
        stdin.flush()
        answer: dict[str, Any] = json.loads(stdout.readline())
        calls, said = (file.read_text() if file.exists() else "" for file in files)
        return answer["code"], said, calls.splitlines()


@contextmanager
def federations(folder: Path) -> Iterator[Federations]:
    """Start the process that carries out the jobs."""
    paths = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, "-P", HERE / "federation.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "LD_PRELOAD": str(compiled(folder)), "PYTHONPATH": ":".join(paths)},
    )
    try:
        yield Federations(folder, process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)


def sweep(folder: Path, every: int, progress: IO[str] | None = None) -> list[Tried]:
    """Let every so many-th call of a run fail, one in each run."""
    with federations(folder.resolve()) as at_work:
        code, said, calls = at_work.run("calm")
        assert code == 0, said
        model = (folder / "calm" / FINAL).read_bytes()
        faults = list(_faults(calls, every))
        found = []
        for done, (number, mode, error) in enumerate(faults, 1):
            found.append(_tried(at_work, model, calls[number - 1], mode, number, error))
            if progress is not None and (done % 50 == 0 or found[-1].wrong):
                print(f"{done} of {len(faults)}: {found[-1]}", file=progress, flush=True)
    return found


def _faults(calls: Sequence[str], every: int) -> Iterator[tuple[int, int, int]]:
    """Yield numbers of calls, modes and errors; the errors take turns."""
    turns: Counter[str] = Counter()
    for number, call in enumerate(calls, 1):
        kind = call.partition(" ")[0]
        turns[kind] += 1
        if number % every == 0:
            yield number, ONCE, ERRORS[kind][turns[kind] // every % len(ERRORS[kind])]
            yield number, KILL, 0
            if kind == "write":
                yield number, FULL, errno.ENOSPC


def _tried(
    at_work: Federations, model: bytes, call: str, mode: int, number: int, error: int
) -> Tried:
    folder = at_work.folder / "run"
    shutil.rmtree(folder, ignore_errors=True)
    code, said, _ = at_work.run("run", mode=mode, at=number, error=error)
    fault = LASTING.get(mode) or os.strerror(error)
    wrong = ""
    if mode != KILL and code != 0 and not _names_it(said, error):
        wrong = f"ended with {code}: {said[-1500:]}"
    over = code == 0
    if not over:
        again, words, _ = at_work.run("run", resume=True)
        if again and "the run is over" not in words:
            wrong = wrong or f"resumed, it ended with {again}: {words[-1500:]}"
    wrong = wrong or _unlike(folder, model)
    place = call.replace(str(at_work.folder), "")
    return Tried(place, fault, not over, wrong)


def _names_it(said: str, error: int) -> bool:
    last = said.strip().rpartition("\n")[2]
    causes = (os.strerror(error), *OF_SQLITE)
    return any(cause in last for cause in causes) and "this is a bug" not in said


def _unlike(folder: Path, model: bytes) -> str:
    """Say in what a run's results are not those of the calm one."""
    try:
        if (folder / FINAL).read_bytes() != model:
            return "another model"
        record = json.loads((folder / "run.json").read_text())
    except (OSError, ValueError) as error:
        return f"results are missing: {error}"
    if not record["finished"] or len(record["rounds"]) != ROUNDS:
        return f"run.json has {len(record['rounds'])} rounds, finished: {record['finished']}"
    return ""


def checks(found: Sequence[Tried]) -> Iterator[Check]:
    """Sum up what was tried, for each kind of call."""
    groups: dict[str, list[Tried]] = {}
    for tried in found:
        kind = tried.call.partition(" ")[0]
        name = f"{kind} fails" if tried.fault not in LASTING.values() else tried.fault
        groups.setdefault(name, []).append(tried)
    for name, group in sorted(groups.items()):
        ended, bad = sum(each.ended for each in group), [each for each in group if each.wrong]
        says = f"{len(group)} tried: {len(group) - ended} went on, {ended} ended and were resumed"
        if bad:
            first = bad[0]
            says += f"; {len(bad)} wrong, first {first.call}, {first.fault}: {first.wrong}"
        yield Check(name, says, not bad)
    ended = sum(each.ended for each in found)
    yield Check(
        "all", f"{len(found)} tried, {ended} ended and were resumed, all to the same model",
        not any(each.wrong for each in found),
    )  # fmt: skip


def main() -> None:
    """Sweep, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="only every so many-th call [1]")
    every: int = parser.parse_args().every
    with tempfile.TemporaryDirectory(prefix="fedaq-faults-") as folder:
        found = sweep(Path(folder), every, sys.stderr)
    conclude(checks(found), "a fault at a call on a file of a run")


if __name__ == "__main__":
    main()
