"""The command `fedaq check-task`: how it ends, and what it prints."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from torch import nn
from typer.testing import CliRunner

from client.checked_tasks import GOOD, checked
from fedaq.errors import UserError
from fedaq_client.cli import task_report


@dataclass
class Told:
    """What the command said, and how it ended."""

    code: int
    out: str = ""
    lines: list[str] = field(default_factory=list)


def command(
    *arguments: str, folder: Path, monkeypatch: pytest.MonkeyPatch, source: str = ""
) -> Told:
    import sys

    import typer

    from fedaq_client.cli.check_task import check_task

    (folder / "mine.py").write_text(source)
    monkeypatch.chdir(folder)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    app = typer.Typer()
    app.command()(check_task)
    result = CliRunner().invoke(app, list(arguments))
    if isinstance(result.exception, UserError):
        return Told(2, str(result.exception))
    return Told(result.exit_code, result.output, result.output.splitlines())


def test_the_exit_code_says_what_came_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = command("digits", "--partition", "1/3", folder=tmp_path, monkeypatch=monkeypatch)
    assert (good.code, good.lines[-1]) == (0, "ready")
    assert "17,226 values in 6 tensors" in good.out
    assert "479, 30 batches of 16" in good.out
    bits = [line.split() for line in good.lines if line.split()[:1] in (["32"], ["2"])]
    assert [row[1:3] for row in bits] == [["68.9", "kB"], ["4.40", "kB"]]
    source = "from fedaq.tasks import Task\ntask = Task('x', lambda: 1, list, list)\n"
    bad = command("mine:task", folder=tmp_path, monkeypatch=monkeypatch, source=source)
    sentence = "model: model() must return a torch.nn.Module, and returned int"
    assert (bad.code, bad.lines) == (
        1,
        [f"wrong: {sentence}", "1 thing is wrong"],
    )
    none = command("mine:no", folder=tmp_path, monkeypatch=monkeypatch, source="")
    assert (none.code, none.out) == (2, "task mine:no: mine has no 'no'")


def test_what_a_task_says_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    def model() -> nn.Module:
        raise ValueError("\x1b[31m[bold]red[/bold]")

    task_report.show(checked(replace(GOOD, model=model)))
    said = capsys.readouterr().out
    assert "\x1b[31m" not in said
    assert "[bold]red[/bold]" in said


def test_what_becomes_of_the_tensors_is_told_class_by_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
from dataclasses import replace
from torch import nn
from fedaq.tasks.digits import task as digits

def model():
    module = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10))
    module[0].requires_grad_(False)
    return module

task = replace(digits, model=model, tensors={"3.bias": "server"})
"""
    said = command("mine:task", folder=tmp_path, monkeypatch=monkeypatch, source=source)
    names = ("coded", "statistics", "the server's", "local", "frozen")
    rows = {
        name: line.strip().removeprefix(name).split()
        for name in names for line in said.lines if line.strip().startswith(f"{name} ")
    }  # fmt: skip
    assert {name: row[:2] for name, row in rows.items()} == {
        "coded": ["3", "384"], "statistics": ["2", "64"], "the server's": ["1", "10"],
        "local": ["1", "1"], "frozen": ["2", "2,080"],
    }  # fmt: skip
    assert rows["coded"][2:4] == ["1.54", "kB"]
    assert rows["coded"][5] == "B"
    assert 16 < float(rows["coded"][4]) < 384
    assert rows["frozen"][2:] == ["never", "sent", "-"]
