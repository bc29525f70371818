"""What a check of a task found, and what the task costs, as tables and sentences."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from fedaq.cli import checkup
from fedaq.codec import payload
from fedaq.codec.model import ModelSpec
from fedaq.codec.quantizer import Range
from fedaq.energy.radios import PRESETS
from fedaq.process.terminal import console, foreign, si
from fedaq_client.cli.task_findings import Checked, Facts, Kind
from fedaq_client.cli.task_tensors import TensorClass

WIDTHS = (32, 8, 4, 2)


def show(checked: Checked) -> None:
    """Print what was found, and what the task costs."""
    if checked.facts is not None:
        _show_facts(checked.facts)
    styles = {Kind.WRONG: "bold red", Kind.DOUBTFUL: "yellow", Kind.NOTE: "dim"}
    for finding in checked.findings:
        console.print(f"[{styles[finding.kind]}]{finding.kind}:[/] {foreign(finding.sentence)}")
    wrong = sum(finding.kind is Kind.WRONG for finding in checked.findings)
    console.print(
        "ready" if wrong == 0 else f"{wrong} {'thing is' if wrong == 1 else 'things are'} wrong"
    )


def _show_facts(facts: Facts) -> None:
    spec, training = facts.spec, facts.training
    epoch_s = facts.batches * facts.batch_s
    table = Table(box=None, show_header=False)
    table.add_row("model", f"{spec.parameters:,} values in {len(spec.tensors)} tensors")
    table.add_row(
        "its memory on a client", f"{si(4 * checkup.MODELS_BESIDE * spec.parameters, 'B')} and more"
    )
    table.add_row(
        "examples", f"{facts.examples:,}, {facts.batches:,} batches of {training.batch_size}"
    )
    table.add_row("training", f"{si(facts.batch_s, 's')} a batch, {si(epoch_s, 's')} an epoch")
    round_s = training.local_epochs * epoch_s
    table.add_row("a round", f"{si(round_s, 's')}, local epochs: {training.local_epochs}")
    console.print(table)
    console.print(_classes(facts.classes))
    console.print(_transfers(spec))


def _classes(classes: Sequence[TensorClass]) -> Table:
    title = "what becomes of the tensors; the update of one batch is coded at the default steps"
    table = Table(box=SIMPLE_HEAD, title=title)
    table.add_column("class")
    for name in ("tensors", "values", "whole, float32", "coded update"):
        table.add_column(name, justify="right")
    for one in classes:
        table.add_row(
            one.name, f"{one.tensors:,}", f"{one.values:,}",
            si(one.whole_bytes, "B") if one.whole_bytes else "never sent",
            si(one.update_bytes, "B") if one.update_bytes else "-",
        )  # fmt: skip
    return table


def _transfers(spec: ModelSpec) -> Table:
    ranges = [Range(-1.0, 1.0)] * len(spec.tensors)  # any: they do not change the size
    table = Table(box=SIMPLE_HEAD, title="one transfer, and the energy to send it up")
    table.add_column("bits", justify="right")
    table.add_column("bytes", justify="right")
    for name in PRESETS:
        table.add_column(name, justify="right")
    for bits in WIDTHS:
        sent = payload.plan_payload(spec, (bits,) * len(spec.tensors), ranges).payload_bytes
        joules = (8 * sent * radio.cost().uplink_j_per_bit for radio in PRESETS.values())
        table.add_row(str(bits), si(sent, "B"), *(si(j, "J") for j in joules))
    return table
