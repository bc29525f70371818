"""A client inside a program that does other things too: an app, a service, a test."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from fedaq.energy.cost import RadioCost
from fedaq.energy.radios import PRESETS
from fedaq.process import forks
from fedaq.process.background import Background, Tell
from fedaq.settings import load_settings
from fedaq.tasks import AnyTask, read_data, task_of
from fedaq.tasks.hardware import left_as_it_was, use_threads
from fedaq_client.events import Event
from fedaq_client.learners import learner_of
from fedaq_client.means import Meter, means_of
from fedaq_client.naming import name_of, part_of
from fedaq_client.privacy import privacy_of
from fedaq_client.readiness import Ready
from fedaq_client.training import Learner
from fedaq_client.transport.access import servers_of

STOPPED = "the program stopped it"
# For clients of one process: torch has one generator for all of them.
_turn = threading.Lock()


class Client:
    """A client of a federation, which trains on the data of this device.

    It works on a thread and an event loop of its own. The program's loop and its executor, its
    signals and its logging stay as they are. Torch has one generator and one number of threads for
    all of a process: both are given back after every training, but what the program draws from the
    generator while a round trains are the client's numbers, and changes what it trains. Clients of
    one process train by turns. gRPC's own support of forks is switched off, unless gRPC is imported
    already: a child that the program forks lives, but must not use gRPC. With ``device="cuda"`` the
    variable CUBLAS_WORKSPACE_CONFIG is set, if it is not.

    Parameters
    ----------
    task : str, Task or callable
        A built-in task, ``package.module:attribute``, a task, or a function of the data path that
        returns one; the same as the server's.
    server : str
        ``host:port``; of several, ``A,B``, the next where one is gone.
    data : Sized, Path or str, optional
        The client's examples, or the path from which the task reads them; None: what it reads
        without one.
    name : str, optional
        Its identity; None: its certificate's or token's, its part, or the host's name.
    partition : str, optional
        Part 2 of 5 of the examples: ``2/5``.
    seed : int
        Of the run: it decides who has which part, and what model is held at first.
    tls, token_file, insecure, proxy, start_from, device
        As of ``fedaq client``.
    radio : str or RadioCost, optional
        What its link costs, a preset or numbers; None: what the server assumes.
    state : Path or str, optional
        Folder of this client alone that keeps, over a restart, the model that it holds, what it
        left unsent and the task's own state: then it needs what it missed, not the whole model.
    device_budget : str, optional
        What this device may spend in the run: ``"2J"``, ``"20MB"``, ``"3EUR"``, or several with
        commas; None: what the server gives it.
    tariff : float, optional
        Money for a megabyte of payload; None: what the server assumes.
    training_w : float, optional
        Power that the device draws while it trains: that energy is reported, and counts in no
        budget.
    meter : callable, optional
        Returns the joules that the device has taken so far: measures the same. It is called on
        another thread.
    threads : int, optional
        Of torch while it trains; 0: all cores. None: as many as the program has it use.
    give_up_after_s : float, optional
        Seconds without a server; None: try without end.
    secure_aggregation : bool
        Whether to refuse rounds in which the server would see this client's update.
    ready : callable, optional
        Returns None or True if the device is ready for rounds, else a `Decline` with the reason. It
        is asked before the client joins, when a round begins, and while it waits, at every interval
        of heartbeats; on another thread, never twice at a time, and may block for a little. What it
        raises ends the client and comes out of `run`.
    on_event : callable
        Told of `Joined`, `Declined`, `RoundBegun`, `Trained`, `Sent` and `Refused`
        (`fedaq_client.events`), where the client is waited for. What it raises ends the client.

    Raises
    ------
    UserError
        If an argument is wrong.

    Examples
    --------
    >>> client = Client("digits", "127.0.0.1:50051", partition="1/3", name="kitchen")
    >>> reason = client.run()  # doctest: +SKIP
    """

    def __init__(
        self,
        task: AnyTask,
        server: str,
        *,
        data: Sized | Path | str | None = None,
        name: str | None = None,
        partition: str | None = None,
        seed: int = 1,
        tls: Path | str | None = None,
        token_file: Path | str | None = None,
        insecure: bool = False,
        proxy: str | None = None,
        start_from: Path | str | None = None,
        radio: str | RadioCost | None = None,
        state: Path | str | None = None,
        device_budget: str | None = None,
        tariff: float | None = None,
        training_w: float | None = None,
        meter: Meter | None = None,
        device: Literal["auto", "cpu", "cuda", "mps"] = "cpu",
        threads: int | None = None,
        give_up_after_s: float | None = None,
        secure_aggregation: bool = False,
        ready: Ready | None = None,
        on_event: Callable[[Event], object] = lambda event: None,
    ) -> None:
        self._task = task
        path = data if isinstance(data, str | os.PathLike) else None
        self._examples = None if isinstance(data, str | os.PathLike) else data
        own = {
            "server": server, "name": name, "partition": partition, "state": state,
            "radio": radio if isinstance(radio, str) else None, "give_up_after_s": give_up_after_s,
            "device_budget": device_budget, "tariff": tariff, "training_w": training_w,
        }  # fmt: skip
        network = {"tls": tls, "token_file": token_file, "insecure": insecure, "proxy": proxy}
        given = {
            "data": path, "seed": seed, "start_from": start_from, "device": device,
            "threads": threads, "privacy.secure_aggregation": secure_aggregation,
            **{f"client.{name}": value for name, value in own.items()},
            **{f"network.{name}": value for name, value in network.items()},
        }  # fmt: skip
        keywords = {name: value for name, value in given.items() if value is not None}
        self._settings = load_settings(environment={}, keywords=keywords)
        client = self._settings.client
        self._servers = servers_of(self._settings.network, client)
        self._part = part_of(client)
        self._name = name_of(client, self._part, self._servers[0][1])
        if isinstance(radio, RadioCost):
            self._radio: RadioCost | None = radio
        else:
            self._radio = None if client.radio is None else PRESETS[client.radio].cost()
        self._means = means_of(client, meter)
        self._ready, self._on_event = ready, on_event
        self._is_stopped = False
        self._background = Background(self._work)

    @property
    def name(self) -> str:
        """The name under which it joins."""
        return self._name

    def run(self) -> str:
        """Take part until the run is over, or the client is stopped; once.

        Returns
        -------
        str
            The server's reason for the end, or that the program stopped it.

        Raises
        ------
        UserError
            If the task cannot be used, or the server refuses this client.
        FedaqError
            If there was no server for too long.
        Exception
            What `ready` or `on_event` raised.
        """
        try:
            return self._background.result()
        except asyncio.CancelledError:
            if not self._is_stopped:
                raise
            return STOPPED

    async def arun(self) -> str:
        """Do what `run` does, without holding up the event loop; a cancellation stops it."""
        task = asyncio.current_task()
        assert task is not None
        try:
            return await self._background.aresult()
        except asyncio.CancelledError:
            if not self._is_stopped or task.cancelling():
                raise
            return STOPPED

    def stop(self) -> None:
        """Leave the run, from any thread; a training that goes on is waited for by `run`."""
        self._is_stopped = True
        self._background.stop()

    async def _work(self, tell: Tell) -> str:
        forks.allow_in_a_program()
        # What these import is gRPC.
        from fedaq_client.returning import CONNECT_S, take_part
        from fedaq_client.transport.connection import in_turn

        own = self._settings.client
        with _turn, left_as_it_was():
            learner = self._learner()
        return await take_part(
            in_turn(self._servers, CONNECT_S),
            self._name,
            learner,
            self._radio,
            lambda event: tell(self._on_event, event),
            own.give_up_after_s,
            ready=self._ready,
            means=self._means,
            privacy=privacy_of(self._settings, self._servers[0][1].certificates),
        )

    def _learner(self) -> Learner:
        settings = self._settings
        task = task_of(self._task, settings.data)
        examples = self._examples
        if examples is None:
            examples = read_data(task, "train_data", settings.data)
        return learner_of(
            task,
            examples,
            self._part,
            settings,
            state=settings.client.state,
            around=self._around_training,
        )

    @contextmanager
    def _around_training(self) -> Iterator[None]:
        with _turn, left_as_it_was():
            if self._settings.threads is not None:
                use_threads(self._settings.threads, default=0)
            yield
