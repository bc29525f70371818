"""Runs in this process that are cut off, and go on."""

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from faults.federation import FLAGS
from fedaq.settings import Settings, load_settings
from fedaq_lab.local import federate
from fedaq_server.records.run_folder import new_run, resumed_run
from fedaq_server.run import Run


class _PowerCutError(Exception):
    pass


def settings_of(begun: Any, flags: Mapping[str, Any] = FLAGS) -> Settings:
    """Return the settings of a run that is begun with flags, or goes on."""
    return load_settings(environment={}, flags={} if begun else flags, begun=begun)


def whole(folder: Path, flags: Mapping[str, Any] = FLAGS) -> None:
    """Make a run."""
    with new_run(folder, settings_of(None, flags)) as (settings, ledger):
        asyncio.run(federate(Run(settings, ledger, lambda record: None)))


def cut_after(rounds: int, folder: Path, copy: Path, flags: Mapping[str, Any] = FLAGS) -> None:
    """Make a run, or go on with one, and copy what is on the disk after so many of its rounds."""

    def on_round(record: Any) -> None:
        if record.round == rounds:
            shutil.copytree(folder, copy)
            raise _PowerCutError

    with (
        pytest.raises(_PowerCutError),
        resumed_run(folder, lambda begun: settings_of(begun, flags)) as (settings, ledger),
    ):
        asyncio.run(federate(Run(settings, ledger, on_round)))


def gone_on(folder: Path) -> int:
    """Go on with a run; return after which round that was."""
    with resumed_run(folder, settings_of) as (settings, ledger):
        after = ledger.rounds_done
        asyncio.run(federate(Run(settings, ledger, lambda record: None)))
    return after


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files in a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
