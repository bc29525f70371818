"""The ``fedaq`` command: finds the commands that each side brings, and words its errors."""

import os
import sys
import traceback
from importlib.metadata import entry_points

import typer

from fedaq import __version__
from fedaq.errors import FedaqError, UserError

COMMANDS = ("run", "server", "client", "inspect")

EXTRAS = {"safetensors": "server", "matplotlib": "server", "sklearn": "client"}


def _app() -> typer.Typer:
    app = typer.Typer(
        help="Federated learning for devices that pay for every bit they send.",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
    )
    found = {entry.name: entry for entry in entry_points(group="fedaq.commands")}
    known = [name for name in COMMANDS if name in found]
    for name in [*known, *sorted(found.keys() - set(COMMANDS))]:
        app.command(name)(found[name].load())

    @app.callback(invoke_without_command=True)
    def _version(version: bool = typer.Option(False, help="Print the version and exit.")) -> None:
        if version:
            print(f"fedaq {__version__}")
            raise typer.Exit

    return app


def main() -> None:
    """Run the command line; every expected failure is one line on standard error."""
    try:
        _app()()
    except UserError as error:
        _fail(str(error), 2)
    except FedaqError as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:
        _fail("stopped", 130)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        _fail(f"this command needs {error.name}: pip install 'fedaq[{extra}]'", 1)
    except Exception as error:
        if os.environ.get("FEDAQ_TRACEBACK"):
            traceback.print_exc()
        _fail(f"{type(error).__name__}: {error} (this is a bug; FEDAQ_TRACEBACK=1 shows where)", 1)


def _fail(sentence: str, code: int) -> None:
    print(f"fedaq: {sentence}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
