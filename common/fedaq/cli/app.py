"""The ``fedaq`` command: finds the commands that each side brings, and words its errors."""

import logging
import os
import sys
import traceback
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, NoReturn

import typer

from fedaq import __version__
from fedaq.cli.wording import sentence_of
from fedaq.errors import UserError, printable
from fedaq.process import forks, logs, outputs, stopping

log = logging.getLogger("fedaq")

# typer's own from 0.26 on; Flower asks for an earlier one, which leaves it to click.
MisusedError: type[Any] = (
    getattr(typer, "TyperException", None) or import_module("click").ClickException
)

COMMANDS = (
    "run", "compare", "server", "client", "doctor", "settings", "health", "inspect", "radio",
    "certs", "tokens", "check-task", "dashboard", "report", "track", "export",
)  # fmt: skip


def application() -> typer.Typer:
    """Return the application, with a command for every entry point."""
    app = typer.Typer(
        help="Federated learning for devices that pay for every bit they send.",
        add_completion=True,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
    )
    found = {entry.name: entry for entry in entry_points(group="fedaq.commands")}
    known = [name for name in COMMANDS if name in found]
    for name in [*known, *sorted(found.keys() - set(COMMANDS))]:
        command = found[name].load()
        if name == "doctor":  # it has commands of its own
            app.add_typer(command(), name=name)
        else:
            app.command(name)(command)

    @app.callback(invoke_without_command=True)
    def _without_command(
        context: typer.Context,
        version: bool = typer.Option(False, "--version", help="Print the version and exit."),
    ) -> None:
        if version:
            print(f"fedaq {__version__}")
        elif context.invoked_subcommand is None:
            print(context.get_help())

    return app


def main() -> None:
    """Run the command line; every expected failure is one line on standard error."""
    outputs.prepare()
    # gRPC would print its own words beside ours.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Torch's threads would spin for long on cores that others need: small models train many times
    # slower so.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    forks.allow()
    stopping.listen()
    stopping.follow_parent()
    try:
        code = application()(prog_name="fedaq", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code)
    except stopping.StoppedError as stopped:
        _fail("stopped", stopped.code)
    except MisusedError as error:
        _fail(_usage(error), error.exit_code)
    except Exception as error:
        if os.environ.get("FEDAQ_TRACEBACK"):
            traceback.print_exc()
        _fail(sentence_of(error), 2 if isinstance(error, UserError) else 1)


def _usage(error: Any) -> str:
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "fedaq"
    return f"{error.format_message().rstrip('.')}; see {command} --help"


def _fail(sentence: str, code: int) -> NoReturn:
    line = printable(" ".join(sentence.split()))
    outputs.go_on_without()  # what stdout has left matters less than this
    if logs.are_json():
        log.error(line, extra=logs.event("failed", exit_code=code))
    else:
        print(f"fedaq: {line}", file=sys.stderr)
    sys.exit(code)
