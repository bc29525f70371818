"""A server process from its settings to its results."""

import gc
from collections.abc import Callable, Coroutine, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fedaq import stopping
from fedaq.settings import Settings, load_settings
from fedaq.terminal import console
from fedaq_server.display import Display
from fedaq_server.federation import Run, serve
from fedaq_server.folder import results_folder


def run_server(
    *, config: Path | None, out: Path | None, flags: Mapping[str, Any], assignments: list[str]
) -> None:
    """Run a federation and show it.

    Raises
    ------
    UserError
        If a setting is wrong or the server cannot listen.
    FedaqError
        If too few clients connect in time.
    """
    settings = load_settings(config=config, flags=flags, assignments=assignments)
    show_run(settings, out, lambda run, display: serve(run, display.on_listening))


def show_run(
    settings: Settings,
    out: Path | None,
    federate: Callable[[Run, Display], Coroutine[Any, Any, None]],
) -> None:
    """Carry out a run that `federate` brings clients to; show progress, table and picture.

    Raises
    ------
    FedaqError
        If the run fails.
    """
    if find_spec("matplotlib") is None:  # now, and not when the rounds are over
        raise ModuleNotFoundError(name="matplotlib")
    with results_folder(out, settings) as folder:
        _carry_out(settings, folder, federate)
        # The model is part of cycles, and matplotlib could use its memory.
        gc.collect()
        from fedaq_server.picture import draw_run

        picture = draw_run(folder)
        console.print(f"results: {folder}\npicture: {picture}")


def _carry_out(
    settings: Settings, folder: Path, federate: Callable[[Run, Display], Coroutine[Any, Any, None]]
) -> None:
    with Display(settings) as display:
        run = Run(settings, folder, display.on_round)
        run.roster.on_change = display.on_clients
        stopping.run(federate(run, display))
    display.summary(run.records)
