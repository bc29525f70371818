"""A server inside a program: a service, an app, a test."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Unpack

from torch import Tensor

from fedaq.net.addresses import joined
from fedaq.process.background import Background, Tell
from fedaq.settings import Options, Settings
from fedaq.tasks.hardware import left_as_it_was
from fedaq_server.asked import AnyTask, Asked, asked
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.record import RoundRecord
from fedaq_server.records.result import Result, load
from fedaq_server.records.run_folder import new_run, resumed_run
from fedaq_server.run import Run
from fedaq_server.serve import serve


@dataclass(frozen=True)
class RoundEnd:
    """A round that is over and committed; the next begins when `after_round` returns.

    Attributes
    ----------
    record : RoundRecord
        What it came to.
    """

    record: RoundRecord
    _run: Run = field(repr=False)
    _asked_to_end: list[bool] = field(default_factory=list, repr=False)

    def state_dict(self) -> dict[str, Tensor]:
        """Return a copy of the tensors of the model that was tested, by name."""
        tensors = self._run.model.state_dict().items()
        return {name: tensor.detach().clone() for name, tensor in tensors}

    def end_run(self) -> None:
        """Let this round be the last: the run is over then, and clients are told so."""
        self._asked_to_end.append(True)


class Server:
    """A federation's server, for clients that connect over gRPC.

    It works on a thread and an event loop of its own, and sets up neither signals nor logging.

    Parameters
    ----------
    task : str, Task or callable
        As of `fedaq.run`.
    out : Path or str
        Folder of the run: ledger, ``run.json``, model.
    resume : bool
        Whether to go on with the run in `out`, or to begin one if there is none; else it must be
        new.
    host, port, tls
        As the settings in the section `network`; port 0 is any free one.
    on_listening : callable
        Told of the address once clients can connect.
    on_round : callable
        Told of every committed round, where the run is waited for.
    after_round : callable
        Given a `RoundEnd` after every round, on a thread, before the next begins: to publish the
        model, or to end the run. What it raises ends the run, which can be resumed.
    **options
        Settings by their names, as in `fedaq.settings.Options`; ``aggregation`` may be a function
        (`fedaq_server.rounds.rules.Rule`), ``scheme`` one that builds a scheme.

    Examples
    --------
    >>> server = Server("digits", out="runs/first", clients=3, rounds=20, port=50051)
    >>> result = server.run()  # doctest: +SKIP
    """

    def __init__(
        self,
        task: AnyTask,
        *,
        out: Path | str,
        resume: bool = False,
        host: str | None = None,
        port: int | None = None,
        tls: Path | str | None = None,
        on_listening: Callable[[str], object] = lambda address: None,
        on_round: Callable[[RoundRecord], object] = lambda record: None,
        after_round: Callable[[RoundEnd], object] | None = None,
        **options: Unpack[Options],
    ) -> None:
        self._task = task
        self._out = Path(out)
        self._resume = resume
        self._options: dict[str, Any] = {
            **options, "network.host": host, "network.port": port, "network.tls": tls,
        }  # fmt: skip
        self._on_listening, self._on_round = on_listening, on_round
        self._after_round = after_round
        self._background = Background(self._work)

    def run(self) -> Result:
        """Carry out the run until it is over, or stopped; once.

        Raises
        ------
        UserError
            If a setting is wrong, or the server cannot listen.
        FedaqError
            If too few clients connect in time.
        asyncio.CancelledError
            If it was stopped.
        """
        return self._background.result()

    async def arun(self) -> Result:
        """Do what `run` does, without holding up the event loop; a cancellation stops it."""
        return await self._background.aresult()

    def stop(self) -> None:
        """Stop the run after what was committed, from any thread; it can be resumed."""
        self._background.stop()

    async def _work(self, tell: Tell) -> Result:
        with left_as_it_was(), self._opened() as (wanted, ledger):
            run = wanted.run(ledger, lambda record: tell(self._on_round, record))
            run.is_last = lambda record: self._is_last(run, record)
            host = wanted.settings.network.host
            await serve(run, lambda port: tell(self._on_listening, joined(host, port)))
        return load(self._out, task=wanted.task)

    @contextmanager
    def _opened(self) -> Iterator[tuple[Asked, Ledger]]:
        wanted: list[Asked] = []

        def settings_of(begun: dict[str, Any] | None) -> Settings:
            wanted.append(asked(self._task, self._options, begun=begun))
            return wanted[-1].settings

        opened: AbstractContextManager[tuple[Settings, Ledger]] = (
            resumed_run(self._out, settings_of)
            if self._resume
            else new_run(self._out, settings_of(None))
        )
        with opened as (_, ledger):
            yield wanted[-1], ledger

    def _is_last(self, run: Run, record: RoundRecord) -> bool:
        if self._after_round is None:
            return False
        end = RoundEnd(record, run)
        self._after_round(end)
        return bool(end._asked_to_end)
