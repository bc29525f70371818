"""A run: what it holds, from its settings to its results."""

import asyncio
import logging
import platform
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing, nullcontext, suppress
from dataclasses import asdict
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fedaq import __version__
from fedaq.codec import statistics
from fedaq.codec.model import ModelSpec
from fedaq.codec.payload import tensor_spreads
from fedaq.codec.quantizer import Floats, Spread
from fedaq.errors import SystemFaultError, UserError
from fedaq.files import replacing
from fedaq.metric import ACCURACY, Metric
from fedaq.modules.bound import Bound
from fedaq.process.logs import event
from fedaq.process.memory import given_back
from fedaq.settings import HOW_REACHED, Settings
from fedaq.tasks import (
    Evaluation,
    Task,
    Training,
    evaluated,
    initial_model,
    load_task,
    read_data,
    signature_of,
)
from fedaq.tasks.hardware import device_named, use_threads
from fedaq.v1 import federation_pb2 as pb
from fedaq_server.metrics import Metrics
from fedaq_server.privacy.account import PrivacyAccount
from fedaq_server.privacy.release import private_values
from fedaq_server.records.ledger import MOMENTS, Committed, Ledger
from fedaq_server.records.record import RoundRecord
from fedaq_server.records.run_file import RunFile
from fedaq_server.records.weights import base_of, write_weights
from fedaq_server.rounds.differences import LEAST_CHUNK_BYTES, History
from fedaq_server.rounds.federation import Federation
from fedaq_server.rounds.loop import run_rounds
from fedaq_server.rounds.rules import Rule, rule_of
from fedaq_server.rounds.server_optimizer import ServerOptimizer
from fedaq_server.schemes.loading import load_scheme
from fedaq_server.schemes.scheme import Plan, Scheme
from fedaq_server.transport import service
from fedaq_server.transport.roster import Roster
from fedaq_server.transport.tcp_counter import WireCounter

if TYPE_CHECKING:
    from fedaq.privacy.keys import Authority

log = logging.getLogger(__name__)

GOODBYE_S = 5.0

# Steps up to which the median still protects (docs/explanation/hostile-clients.md).
FINE_STEP = 0.01
# Of the norm of the weights with which a run begins: where a clip that adapts begins.
FIRST_CLIP = 0.1


class Run:
    """One run: the federation, and what is recorded of it.

    Parameters
    ----------
    settings : Settings
    ledger : Ledger
        Of this run; if it has rounds, the run goes on after them. Its folder receives
        ``run.json`` and ``model.safetensors``, too.
    on_round : callable
        Told of every committed round.
    task : Task, optional
        Of a program that has it; else the one that the settings name.
    build_scheme : callable, optional
        Takes the settings and returns the scheme; else the one that they name.
    rule : Rule, optional
        How updates become one; else the one that the settings name.
    training : Training, optional
        How clients train; else as the task and the settings say.
    tests : bool
        Whether models are tested here; those of a relay are tested by its own server.

    Attributes
    ----------
    on_commit : callable
        Told of it, too, with the plan that the round began with.
    authority : Authority, optional
        By whom the keys of clients must be proved that mask their updates.
    is_last : callable
        Asked after each round, on a thread, whether the run is to end; `model` is the one that was
        tested then.

    Raises
    ------
    UserError
        If the task or the scheme cannot be loaded, or what is kept of the run cannot be read.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        on_round: Callable[[RoundRecord], None],
        task: Task | None = None,
        build_scheme: Callable[[Settings], Scheme] | None = None,
        rule: Rule | None = None,
        training: Training | None = None,
        *,
        tests: bool = True,
    ) -> None:
        self.settings = settings
        self.ledger = ledger
        self.folder = ledger.folder
        self.task = task or load_task(settings.task, settings.data)
        _check(settings, self.task)
        self.training = training or training_of(self.task, settings)
        self.tests = tests
        scheme = ledger.scheme(load_scheme(settings, build_scheme))
        rule = rule or rule_of(settings)
        if rule is not None and settings.entropy and not self._has_fine_steps():
            log.warning(
                "aggregation %s: the codes of this scheme are so coarse that their %s is mostly 0, "
                "and protects little; take finer steps: --set fedaq.uplink_resolution=0.01",
                settings.aggregation, settings.aggregation.replace("_", " "),
            )  # fmt: skip
        use_threads(settings.threads, default=1)
        base = base_of(settings.start_from, ledger.start_path)
        module = initial_model(self.task, settings.seed, base)
        self.spec = signature_of(self.task, module)
        module.to(device_named(settings.device))
        total = np.zeros(self.spec.parameters, np.int64)
        exact = settings.differences or settings.added_to == "exact"
        self._bound = Bound(
            module, self.spec, None if exact else total.view(np.float32)[: self.spec.parameters]
        )
        measured = tests and self._is_measured()
        # Where the two differ, the module is the tested one.
        model = self._bound.flat.copy() if measured else self._bound.flat
        test_data = read_data(self.task, "test_data", settings.data) if tests else None
        self._run_file = RunFile(self.folder, self.facts, ledger.records, self.task.metric)
        # Who commits a round, and who writes down that the run was stopped meanwhile.
        self._turn = threading.Lock()
        self._on_round, self._in_trouble = on_round, False
        self.authority: Authority | None = None
        self.on_commit: Callable[[Committed, Plan], None] = lambda committed, plan: None
        self.is_last: Callable[[RoundRecord], bool] = lambda record: False
        self.roster = Roster()
        self.conduct = ledger.conduct(settings.limits)
        self.accounts = ledger.accounts(settings)
        history = None
        if settings.differences:
            shortest = min(self.settings.network.chunk_bytes, LEAST_CHUNK_BYTES)
            history = History(self.spec, model.copy(), self.folder, ledger.sent(), shortest)
        # Clients hold the model of the seed: what they lack of another start goes down like any
        # other difference.
        if settings.start_from is not None:
            kept_out = module.state_dict().keys() - {tensor.name for tensor, _ in self.spec.named}
            ledger.read_start(settings.start_from, self.spec, model, self.task.renamed, kept_out)
        first_ranges = tensor_spreads(self.spec, statistics.Scaled(self.spec, model).__getitem__)
        self.privacy = PrivacyAccount.of(
            settings, ledger.privacy(), _first_clip(self.spec, first_ranges),
            private_values(self.spec),
        )  # fmt: skip
        if ledger.rounds_done:
            ledger.read_model(ledger.rounds_done, self.spec, model, self.task.renamed)
        optimizer = ServerOptimizer.begun(settings.server_optimizer, self.spec, module)
        if ledger.rounds_done and optimizer is not None:
            ledger.read_model(ledger.rounds_done, optimizer.spec, optimizer.flat, kind=MOMENTS)
        self.metrics = Metrics(settings.energy.joules, ledger.energy_j)
        self.metrics.connected.set_function(lambda: len(self.roster))
        self.federation = Federation(
            settings=settings,
            spec=self.spec,
            model=model,
            total=total,
            rule=rule,
            optimizer=optimizer,
            history=history,
            first_ranges=first_ranges,
            scheme=scheme,
            roster=self.roster,
            conduct=self.conduct,
            accounts=self.accounts,
            metric=self.task.metric,
            measured=measured,
            evaluate=lambda number: self._evaluated(number, test_data),
            ledger=ledger,
            commit=self._commit,
            on_round=self._record,
            is_last=self._is_last,
            metrics=self.metrics,
            authority=lambda: self.authority,
            privacy=self.privacy,
        )
        self.admission = service.Admission(
            self.spec,
            settings,
            self.training,
            ledger.run_id,
            self.roster,
            self.conduct,
            self.metrics,
            self.accounts,
            rounds_done=lambda: ledger.rounds_done,
        )

    @property
    def model(self) -> torch.nn.Module:
        """The module, with the weights that were tested last."""
        return self._bound.module

    @property
    def records(self) -> list[RoundRecord]:
        """The committed rounds, from the disk."""
        return list(self.ledger.records())

    async def rounds(self, wire: WireCounter) -> None:
        """Run all rounds that are left, keep the final model and let the clients go.

        Raises
        ------
        FedaqError
            If too few clients connect in time.
        """
        await self.carry(lambda last: run_rounds(self.federation, wire, last))

    async def carry(self, rounds: Callable[[RoundRecord | None], Awaitable[None]]) -> None:
        """Let `rounds` run those that are left, given the last one; then do as `rounds` does."""
        history = self.federation.history
        finish = pb.Finish(reason="the server stopped")
        try:
            last = next(self.ledger.records(self.ledger.rounds_done - 1), None)
            if last is not None:
                await asyncio.to_thread(self._write)
            # Its file is removed at the end of the run: Windows removes no open file.
            with nullcontext() if history is None else closing(history):
                await rounds(last)
            await asyncio.to_thread(self._finish)
            reason = f"the run is over after {self.ledger.rounds_done} rounds"
            finish = pb.Finish(reason=reason, over=True)
        finally:
            if not finish.over:
                self._write()
            log.info(
                "%s", finish.reason,
                extra=event("run over", rounds=self.ledger.rounds_done, reason=finish.reason),
            )  # fmt: skip
            with self._turn:
                self._run_file.close()
            await self.say_goodbye(finish)

    def _is_measured(self) -> bool:
        """Tell whether clients measure statistics.

        Quantized updates bring noise into the next model, which the statistics of those who
        trained know nothing of.
        """
        return (
            self.settings.differences
            and self.settings.scheme != "fp32"
            and self.task.measures is not None
            and bool(statistics.normalization(self.spec))
        )

    def _tested(self, number: int) -> Floats:
        """Return the model that is tested after a round, and saved if it is the last.

        It lies in the memory of the module.
        """
        federation, own, tested = self.federation, self.spec.statistics, self._bound.flat
        if federation.history is not None and federation.tests_held(number):
            np.copyto(tested, federation.history.held)
            tested[own] = federation.model[own]
        elif tested is not federation.model:
            np.copyto(tested, federation.model)
        return tested

    def _evaluated(self, number: int, test_data: Any) -> Evaluation | None:
        if not self.tests:
            return None
        self._bound.load(self._tested(number))
        with given_back():
            return evaluated(self.task, self._bound.module, test_data)

    def _has_fine_steps(self) -> bool:
        own = self.settings.fedaq
        return self.settings.scheme != "fedaq" or (
            self.settings.energy.joules is None
            and own.uplink_resolution is not None
            and own.uplink_resolution <= FINE_STEP
        )

    def _finish(self) -> None:
        with replacing(self.folder / "model.safetensors") as partial:
            write_weights(partial, self.spec, self._tested(self.ledger.rounds_done))
        self._run_file.write(finished=True)
        self.ledger.finish()

    def _commit(self, committed: Committed) -> None:
        with self._turn:
            self.ledger.commit(committed)
            self._run_file.keep_up(committed.record.round)

    def _write(self) -> None:
        """Bring ``run.json`` up to date, if there is a round to tell of."""
        with self._turn:
            if not self.ledger.rounds_done:
                return
            try:
                self._run_file.write(finished=False)
            except (OSError, SystemFaultError) as error:  # why the run ends matters more
                log.warning("run.json is behind the ledger: %s", error)

    def _record(self, committed: Committed, plan: Plan) -> None:
        record = committed.record
        # One line of a log is not for what each client has said.
        said = {name: value for name, value in asdict(record).items() if name != "validations"}
        self.metrics.round_over(record)
        metric = self.task.metric
        log.info(
            "round %d: %s, %.4g J", record.round, _outcome(record, metric, tests=self.tests),
            record.energy_j,
            extra=event("round committed", **said),
        )  # fmt: skip
        trouble = self.trouble(record)
        if trouble and not self._in_trouble:  # once: every later round says so in its line
            log.warning(
                "round %d: %s", record.round, trouble,
                extra=event("test not finite", round=record.round, tensors=record.not_finite),
            )  # fmt: skip
        self._in_trouble = bool(trouble)
        self.on_commit(committed, plan)
        self._on_round(record)

    def trouble(self, record: RoundRecord) -> str:
        """Say what of a tested model is not finite; empty if nothing is."""
        return record.trouble(self.task.metric) if self.tests else ""

    def _is_last(self, record: RoundRecord) -> bool:
        return self.is_last(record)

    def facts(self) -> dict[str, Any]:
        """Return what ``run.json`` says of the run besides its rounds."""
        return {
            "id": self.ledger.run_id,
            "fedaq": __version__,
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "numpy": np.__version__,
                "machine": platform.machine(),
            },
            "task": self.settings.task,
            "metric": asdict(self.task.metric),
            "scheme": self.settings.scheme,
            "seed": self.settings.seed,
            "clients": self.settings.clients,
            "parameters": self.spec.parameters,
            "shut_out": [asdict(entry) for entry in list(self.conduct.shut_out.values())],
            **self.accounts.facts(),
            **({"privacy": self.privacy.facts()} if self.privacy else {}),
            # How it was reached is nobody's concern later, and differs between equal runs.
            "settings": self.settings.model_dump(
                mode="json", exclude={"network": HOW_REACHED, "client": True}
            ),
        }

    async def say_goodbye(self, finish: pb.Finish) -> None:
        """Tell all clients that are connected that there is nothing more for them here."""
        message = pb.ServerMessage(finish=finish)
        goodbyes = [client.send(message) for client in self.roster.everyone()]
        with suppress(TimeoutError):  # a client that reads nothing cannot be told either
            async with asyncio.timeout(GOODBYE_S):
                await asyncio.gather(*goodbyes, return_exceptions=True)


def _check(settings: Settings, task: Task) -> None:
    if settings.target_accuracy is not None and task.metric.name != ACCURACY:
        raise UserError(
            f"target_accuracy: the metric of task {task.name} is {task.metric.name}; write target"
        )
    if (settings.privacy.secure_aggregation or settings.is_private) and task.validation_share:
        raise UserError(
            f"{settings.grid_setting}: task {task.name} holds back examples for metrics of each "
            "client (Task.validation_share), which tell of its update; set that to 0"
        )


def _first_clip(spec: ModelSpec, first_ranges: tuple[Spread, ...]) -> float:
    weights = zip(spec.coded_elements, first_ranges, strict=True)
    squares = (elements * (each.mean**2 + each.deviation**2) for elements, each in weights)
    return FIRST_CLIP * sqrt(sum(squares))


def _outcome(record: RoundRecord, metric: Metric, *, tests: bool) -> str:
    if tests:
        return f"{metric.name} {metric.written(record.value(metric.name))}"
    return f"{record.clients} updates"


def training_of(task: Task, settings: Settings) -> Training:
    """Return the task's training with the settings' changes."""
    changes = settings.training.model_dump(exclude_none=True)
    return Training(**{**vars(task.training), **changes})
