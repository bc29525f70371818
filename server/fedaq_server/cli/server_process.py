"""A server process from its settings to its results.

The settings come before gRPC: what it writes is decided when it is imported.
"""

import gc
import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedaq.errors import FedaqError, UserError, refused
from fedaq.process import stopping
from fedaq.process.terminal import console
from fedaq.settings import Settings, load_settings
from fedaq_server.cli.display import Display, doing_of
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.run_folder import new_run, resumed_run
from fedaq_server.transport.open_files import raise_limit
from fedaq_server.transport.tls_failures import reported

if TYPE_CHECKING:
    from fedaq_server.run import Run

log = logging.getLogger(__name__)

Opened = AbstractContextManager[tuple[Settings, Ledger]]


def run_server(
    *,
    config: Path | None,
    out: Path | None,
    resume: Path | None,
    flags: Mapping[str, Any],
    assignments: list[str],
) -> None:
    """Run a federation, or go on with one, and show it.

    Raises
    ------
    UserError
        If a setting is wrong or the server cannot listen.
    FedaqError
        If too few clients connect in time.
    """
    raise_limit()
    if resume is None:
        settings = load_settings(config=config, flags=flags, assignments=assignments)
        run = new_run(out, settings)
    else:
        if out is not None:
            raise UserError(
                "--out and --resume: give one of them; a resumed run stays in its folder"
            )
        run = resumed_run(
            resume,
            lambda begun: load_settings(
                config=config, flags=flags, assignments=assignments, begun=begun
            ),
        )
    show_run(_listened_to(run), _serve)


@contextmanager
def _listened_to(opened: Opened) -> Iterator[tuple[Settings, Ledger]]:
    """Let failed handshakes be logged if the settings say so."""
    with opened as (settings, ledger):
        if settings.network.log_tls_failures:
            with reported():
                yield settings, ledger
        else:
            yield settings, ledger


async def _serve(run: "Run", display: Display) -> None:
    from fedaq_server.serve import serve

    await serve(run, display.on_listening, display.on_page)


def show_run(
    opened: Opened,
    federate: Callable[["Run", Display], Coroutine[Any, Any, None]],
) -> None:
    """Carry out a run that `federate` brings clients to; show progress, table and picture.

    Raises
    ------
    FedaqError
        If the run fails, or, after everything is shown, if its last model's test loss or metric
        is not finite.
    """
    if find_spec("matplotlib") is None:  # now, and not when the rounds are over
        raise ModuleNotFoundError(name="matplotlib")
    with opened as (settings, ledger):
        trouble = _carry_out(settings, ledger, federate)
        # The model is part of cycles, and matplotlib could use its memory.
        gc.collect()
        from fedaq_server.records.picture import draw_run

        console.print(f"results: {ledger.folder}")
        try:
            console.print(f"picture: {draw_run(ledger.folder)}")
        except OSError as error:  # the run has its results
            log.warning("the picture could not be drawn: %s", refused(error) or error)
    if trouble:
        raise FedaqError(f"the run is over, and of its last model {trouble}")


def _carry_out(
    settings: Settings,
    ledger: Ledger,
    federate: Callable[["Run", Display], Coroutine[Any, Any, None]],
) -> str:
    """Return what is wrong with the last model, empty if nothing is."""
    from fedaq_server.run import Run

    with Display(settings, ledger.rounds_done, ledger.energy_j) as display:
        run = Run(settings, ledger, display.on_round)
        run.roster.on_change = display.on_clients
        display.metric = run.task.metric
        display.doing = lambda: doing_of(run.roster)
        stopping.run(federate(run, display))
    budgets = run.accounts.facts().get("budgets", {})
    privacy = {} if run.privacy is None else run.privacy.facts()
    display.summary(ledger.rounds_done, ledger.records(), budgets, privacy)
    last = next(iter(ledger.records(ledger.rounds_done - 1)))
    return last.trouble(run.task.metric)
