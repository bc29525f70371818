"""What a machine computes with: the device that the model is on, and the processor's threads."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

from fedaq.errors import UserError
from fedaq.process.limits import usable_cores


def device_named(name: str) -> torch.device:
    """Return the device that the setting `device` names; ``auto`` is the first there is.

    Raises
    ------
    UserError
        If this machine, or its torch, has no such device.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next((kind for kind, is_there in there.items() if is_there), "cpu")
    if not there.get(name, True):
        raise UserError(
            f"--device {name}: torch {torch.__version__} finds none here; --device auto takes "
            "what there is"
        )
    if name == "cuda":
        # So that a run repeats: torch warns of what it has only a way for that does not.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    return torch.device(name)


def use_threads(asked: int | None, default: int, sharing: int = 1) -> None:
    """Let torch use so many threads in this process.

    Parameters
    ----------
    asked : int, optional
        The setting `threads`; 0 stands for an equal share of the processor's cores.
    default : int
        Where nothing is asked; 0 as above.
    sharing : int
        Processes of this federation that train on this machine at the same time.
    """
    threads = default if asked is None else asked
    torch.set_num_threads(threads or max(1, cores() // sharing))


def cores() -> int:
    """Return the number of cores that this process may keep busy; two threads of one count once."""
    usable = max(1, int(usable_cores()))
    return min(psutil.cpu_count(logical=False) or usable, usable)


@contextmanager
def left_as_it_was() -> Iterator[None]:
    """Give torch's generators, threads and way of computing back as they were before the block."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warns_only = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic, warn_only=warns_only)
