"""Runs from Python: the same rounds and bytes as `fedaq run`, in a program of one's own."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Unpack, get_args

from fedaq.errors import UserError
from fedaq.process.background import Background, Tell
from fedaq.settings import Options
from fedaq.tasks import AnyTask
from fedaq.tasks.hardware import left_as_it_was
from fedaq_lab.local import federate
from fedaq_lab.pools import Pool, pool_of, refuse_address
from fedaq_lab.processes import run_processes
from fedaq_lab.progress import Shown, shown_by
from fedaq_server.asked import Asked, asked, refuse_what_has_no_name
from fedaq_server.records.record import RoundRecord
from fedaq_server.records.result import Result, load
from fedaq_server.records.run_folder import new_run
from fedaq_server.records.saved import record_of
from fedaq_server.serve import page_shown

Engine = Literal["local", "processes", "ray"]
OnRound = Callable[[RoundRecord], object]


@dataclass(frozen=True)
class Where:
    """Where a run is carried out; as the arguments of `run`."""

    engine: Engine = "local"
    ray_address: str | None = None
    ray_gpus: float = 1.0


_TURN_S = 0.05
# Torch has one generator and one number of threads for all of a process.
_turn = threading.Lock()


def run(
    task: AnyTask,
    *,
    out: Path | str | None = None,
    engine: Engine = "local",
    ray_address: str | None = None,
    ray_gpus: float = 1.0,
    progress: bool | None = None,
    on_round: OnRound = lambda record: None,
    **options: Unpack[Options],
) -> Result:
    """Train a whole federation and return what came of it.

    Works in scripts, threads and notebooks, also where an event loop runs; Ctrl-C ends it. Torch's
    generators and threads are afterwards as they were before.

    Parameters
    ----------
    task : str, Task or callable
        A built-in task, ``package.module:attribute``, a task, or a function of the data path that
        returns one.
    out : Path or str, optional
        New folder for what `fedaq run` leaves: ledger, ``run.json``, model. None: a temporary one.
    engine : {"local", "processes", "ray"}
        All in this process, one run after the other; or a server and clients as processes over
        gRPC, for which the task needs a name; or as in the first, with the clients' training on a
        Ray cluster.
    ray_address : str, optional
        Of the cluster; None: the one that the program is connected to, else one is started here.
    ray_gpus : float
        GPUs that the training of a client takes, if ``device`` is ``cuda``: a share of one, too.
    progress : bool, optional
        Whether to show it; None: on a terminal and in a notebook.
    on_round : callable
        Told of every committed round, where this function was called.
    **options
        Settings by their names, as in `Options`; the environment's, ``FEDAQ_*``, come first.

    Returns
    -------
    Result

    Raises
    ------
    UserError
        If a setting or the task is wrong.
    FedaqError
        If the run fails.
    """
    wanted = _checked(engine, task, options)
    on = Where(engine, ray_address, ray_gpus)
    with shown_by(wanted.settings, wanted.task.metric, progress) as shown:
        return _background(wanted, on, out, shown, on_round).result()


async def arun(
    task: AnyTask,
    *,
    out: Path | str | None = None,
    engine: Engine = "local",
    ray_address: str | None = None,
    ray_gpus: float = 1.0,
    progress: bool | None = None,
    on_round: OnRound = lambda record: None,
    **options: Unpack[Options],
) -> Result:
    """Do what `run` does, without holding up the event loop; a cancellation ends the run."""
    wanted = _checked(engine, task, options)
    on = Where(engine, ray_address, ray_gpus)
    with shown_by(wanted.settings, wanted.task.metric, progress) as shown:
        return await _background(wanted, on, out, shown, on_round).aresult()


def run_line(
    line: str,
    task: AnyTask,
    out: Path | None,
    on: Where,
    progress: bool | None,
    options: Options,
) -> Result:
    """Run one line of a comparison: a scheme and settings, ``name:key=value,...``."""
    name, _, assignments = line.partition(":")
    wanted = _checked(
        on.engine,
        task,
        {**options, "scheme": name},
        [each for each in assignments.split(",") if each],
    )
    with shown_by(wanted.settings, wanted.task.metric, progress) as shown:
        return _background(wanted, on, out, shown, lambda record: None).result()


def _checked(
    engine: str, task: AnyTask, options: Mapping[str, Any], assignments: Sequence[str] = ()
) -> Asked:
    if engine not in get_args(Engine):
        raise UserError(f"engine={engine!r}: it is local, processes or ray")
    if engine == "processes":
        refuse_what_has_no_name(task, options)
    return asked(task, options, assignments)


def _background(
    wanted: Asked, on: Where, out: Path | str | None, shown: Shown, on_round: OnRound
) -> Background[Result]:
    async def work(tell: Tell) -> Result:
        def committed(record: RoundRecord) -> None:
            tell(shown.on_round, record)
            tell(on_round, record)

        with _folder(out) as (folder, is_kept):
            if on.engine == "processes":
                refuse_address(on.engine, on.ray_address)
                await _in_processes(wanted, folder, committed)
            else:
                with pool_of(on.engine, on.ray_address, on.ray_gpus) as pool:
                    await _in_this_process(
                        wanted, folder, committed, lambda address: tell(shown.on_page, address),
                        pool,
                    )  # fmt: skip
            result = load(folder, task=wanted.task)
            return result if is_kept else result.without_folder()

    return Background(work)


@contextmanager
def _folder(out: Path | str | None) -> Iterator[tuple[Path, bool]]:
    if out is not None:
        yield Path(out), True
        return
    with TemporaryDirectory(prefix="fedaq-") as place:
        yield Path(place) / "run", False


async def _in_this_process(
    wanted: Asked,
    folder: Path,
    committed: Callable[[RoundRecord], None],
    on_page: Callable[[str], None],
    pool: Pool,
) -> None:
    async with _torch_to_itself():
        with new_run(folder, wanted.settings) as (_, ledger):
            run = wanted.run(ledger, committed)
            async with page_shown(run) as page:
                if page is not None:
                    on_page(page)
                await federate(run, pool)


@asynccontextmanager
async def _torch_to_itself() -> AsyncIterator[None]:
    while not _turn.acquire(blocking=False):  # noqa: ASYNC110  another thread's loop has it
        await asyncio.sleep(_TURN_S)
    try:
        with left_as_it_was():
            yield
    finally:
        _turn.release()


async def _in_processes(
    wanted: Asked, folder: Path, committed: Callable[[RoundRecord], None]
) -> None:
    stopped, follower = threading.Event(), _Follower(committed)

    def look(log: Path) -> None:
        if stopped.is_set():
            raise _StoppedError
        follower.follow(log)

    run_all = partial(
        run_processes,
        config=None,
        out=folder,
        port=None,
        flags={},
        assignments=list(wanted.assignments),
        quiet=True,
        look=look,
    )
    running = asyncio.get_running_loop().run_in_executor(None, run_all)
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        stopped.set()
        with suppress(_StoppedError):
            await running
        raise


class _StoppedError(Exception):
    """The run is to end."""


@dataclass
class _Follower:
    """Reads, line by line, the rounds in a server's log of JSON lines."""

    committed: Callable[[RoundRecord], None]
    _at: int = field(default=0)

    def follow(self, log: Path) -> None:
        """Tell of what is new in the log."""
        with log.open("rb") as file:
            file.seek(self._at)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._at += len(line)
                with suppress(ValueError):
                    event = json.loads(line)
                    if event.get("event") == "round committed":
                        self.committed(record_of(event))
