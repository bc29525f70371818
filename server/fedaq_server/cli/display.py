"""What a person sees while a federation trains, and the table at the end."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from math import isfinite
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.progress import ProgressColumn, Task
from rich.table import Table
from rich.text import Text

from fedaq.energy.budgets import written as amount
from fedaq.metric import LOSS, Metric, written
from fedaq.net.addresses import joined
from fedaq.process.terminal import RoundDisplay, console, foreign, si
from fedaq.settings import Settings
from fedaq_server.records.record import RoundRecord, Totals
from fedaq_server.transport.client import Phase
from fedaq_server.transport.roster import Roster

_TABLE_ROWS = 12
_EMPTY_NAMED = 10


class Display(RoundDisplay):
    """Live progress on a terminal, one line per round elsewhere.

    Attributes
    ----------
    metric : Metric
        The task's.
    doing : callable
        Returns what clients do now; asked by the terminal's own thread.
    """

    def __init__(self, settings: Settings, done: int, energy_j: float) -> None:
        self._settings = settings
        self.metric = Metric()
        self.doing: Callable[[], str] = str
        self._energy_j = energy_j
        self._done = done
        super().__init__("starting", "", settings.rounds, self._done)

    def _columns(self) -> Sequence[ProgressColumn]:
        return (_Doing(self),)

    def on_listening(self, port: int) -> None:
        """Say where the server listens."""
        settings = self._settings
        console.print(
            f"[bold]fedaq[/bold] {settings.task}, scheme {settings.scheme}, "
            f"{settings.rounds} rounds; listening on {joined(settings.network.host, port)}"
        )
        if settings.start_from is not None and not self._done:
            console.print(f"beginning with {foreign(settings.start_from)}")
        if self._done:
            console.print(f"going on after round {self._done}")

    def on_page(self, address: str) -> None:
        """Say where the page to watch is."""
        console.print(f"watch it: {address}", markup=False)

    def on_clients(self, count: int, wanted: int) -> None:
        """Say how many clients are there, and are waited for, while no round can begin."""
        if count < wanted:
            self._show("waiting", f"{count}/{wanted} clients")

    def on_round(self, record: RoundRecord) -> None:
        """Show a finished round."""
        self._energy_j += record.energy_j
        facts = facts_of(record, self.metric, self._energy_j)
        self._show(f"round {record.round}/{self._settings.rounds}", facts, done=record.round)

    def summary(
        self,
        rounds: int,
        records: Iterable[RoundRecord],
        budgets: Mapping[str, Any],
        privacy: Mapping[str, Any],
    ) -> None:
        """Print the table of a run of so many rounds, and what its budgets came to."""
        table = Table(
            title=f"{self._settings.task}, scheme {self._settings.scheme}", box=SIMPLE_HEAD
        )
        columns = dict.fromkeys((self.metric.name, LOSS))
        for column in ("round", *("test\nloss" if name == LOSS else name for name in columns),
                       "epsilon" if privacy else "train\nloss", "bits\ndown", "bits\nup",
                       "payload", "wire", "energy"):  # fmt: skip
            table.add_column(column, justify="right", vertical="bottom")
        every = max(1, -(-rounds // _TABLE_ROWS))
        all_rounds, bad, last_bad = Totals(self.metric), 0, None
        for record in records:
            all_rounds.add(record)
            if record.round == 1 or record.round % every == 0:
                table.add_row(*_row(record, columns))
            if record.trouble(self.metric):
                bad, last_bad = bad + 1, record
        totals = all_rounds.summary()
        table.add_section()
        wire = None
        if totals["uplink_wire_bytes"] is not None:
            wire = totals["uplink_wire_bytes"] + totals["downlink_wire_bytes"]
        payload = totals["uplink_payload_bytes"] + totals["downlink_payload_bytes"]
        table.add_row(
            "total",
            *(written(name, record.value(name)) for name in columns),
            f"{record.epsilon:.4g}" if privacy else "",
            f"{totals['mean_downlink_bits']:.2f}",
            f"{totals['mean_uplink_bits']:.2f}",
            si(payload, "B"),
            "-" if wire is None else si(wire, "B"),
            si(totals["energy_j"], "J"),
        )
        console.print(table)
        for line in (*budget_lines(budgets), *privacy_lines(privacy)):
            console.print(foreign(line))
        if totals.get("relays_j"):
            console.print(f"hops of relays took {si(totals['relays_j'], 'J')} of it")
        if totals.get("training_j"):
            console.print(f"training on the devices took {si(totals['training_j'], 'J')} besides")
        if last_bad is not None:
            console.print(
                f"[bold red]not finite[/] in {bad} of {rounds} rounds, the last of them "
                f"round {last_bad.round}: {foreign(last_bad.trouble(self.metric))}"
            )


def budget_lines(budgets: Mapping[str, Any]) -> list[str]:
    """Return what there is to say of budgets at the end, as ``run.json`` has them; short."""
    lines = []
    if budgets.get("run"):
        run = budgets["run"].items()
        lines.append("budget: " + ", ".join(_spent_of(unit, each) for unit, each in run))
    devices = budgets.get("devices", {})
    if devices:
        name, unit, each = min(
            ((name, unit, each) for name, units in devices.items() for unit, each in units.items()),
            key=lambda found: 1 - found[2]["spent"] / found[2]["budget"],
        )
        lines.append(
            f"budgets of {len(devices)} devices; the nearest to its end: {name}, "
            f"{_spent_of(unit, each)}"
        )
    empty = [f"{each['name']} (round {each['round']})" for each in budgets.get("empty", ())]
    if empty:
        more = f" and {len(empty) - _EMPTY_NAMED} more" if len(empty) > _EMPTY_NAMED else ""
        lines.append(f"empty, and left: {', '.join(empty[:_EMPTY_NAMED])}{more}")
    return lines


def privacy_lines(privacy: Mapping[str, Any]) -> list[str]:
    """Return what there is to say of the budget of epsilon, as ``run.json`` has it."""
    if not privacy:
        return []
    return [
        f"epsilon: {privacy['spent']:.4g} of {privacy['epsilon']:g} for delta "
        f"{privacy['delta']:g}; noise {privacy['noise_multiplier']:.3g} times the clip"
    ]


def _spent_of(unit: str, each: Mapping[str, float]) -> str:
    return f"{amount(each['spent'], unit)} of {amount(each['budget'], unit)}"


class _Doing(ProgressColumn):
    """What clients do now."""

    def __init__(self, display: Display) -> None:
        self._display = display
        super().__init__()

    def render(self, task: Task) -> Text:
        """Return it, asked for anew each time."""
        return Text(self._display.doing(), style="dim")


def doing_of(roster: Roster) -> str:
    """Return what clients do now: how many are in which phase, and the bytes that moved in it.

    Numbers that stand still tell a hang from a slow transfer.
    """
    count, moved = Counter[Phase](), Counter[Phase]()
    with suppress(RuntimeError):  # somebody came or went while we looked, from another thread
        for client in roster.everyone():
            count[client.phase] += 1
            moved[client.phase] += client.moved_bytes
    return ", ".join(
        f"{count[phase]} {phase}" + (f" {si(moved[phase], 'B')}" if moved[phase] else "")
        for phase in (Phase.RECEIVING, Phase.TRAINING, Phase.SENDING)
        if count[phase]
    )


def facts_of(record: RoundRecord, metric: Metric, energy_j: float) -> str:
    """Return what there is to say of a round, and of all joules so far."""
    loss = ""
    if metric.name != LOSS and not isfinite(record.test_loss):
        loss = f"test loss {written(LOSS, record.test_loss)}  "
    return (
        f"{metric.name} {metric.written(record.value(metric.name))}  {loss}"
        f"bits {record.downlink_bits:.2f} down {record.uplink_bits:.2f} up  {si(energy_j, 'J')}"
        + (f"  epsilon {record.epsilon:.3g}" if record.epsilon else "")
    )


def _loss_or_epsilon(record: RoundRecord) -> str:
    """Return what a run without privacy knows of the training, and one with it, of that."""
    if record.epsilon:
        return f"{record.epsilon:.4g}"
    return f"{record.train_loss:.4f}" if isfinite(record.train_loss) else "-"


def _row(record: RoundRecord, metrics: Iterable[str]) -> tuple[str, ...]:
    wire = "-"
    if record.uplink_wire_bytes is not None and record.downlink_wire_bytes is not None:
        wire = si(record.uplink_wire_bytes + record.downlink_wire_bytes, "B")
    return (
        str(record.round),
        *(written(name, record.value(name)) for name in metrics),
        _loss_or_epsilon(record),
        f"{record.downlink_bits:.2f}",
        f"{record.uplink_bits:.2f}",
        si(record.uplink_payload_bytes + record.downlink_payload_bytes, "B"),
        wire,
        si(record.energy_j, "J"),
    )
