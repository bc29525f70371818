"""Where the clients of an engine have their training done."""

from collections.abc import Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from fedaq.errors import UserError
from fedaq.settings import Settings
from fedaq.tasks import Task
from fedaq_client.learners import pooled_learner
from fedaq_client.training import Learner
from fedaq_lab.turns import learners_needed

# While one client trains, others receive and send.
LEARNERS = 4


class Pool(Protocol):
    """Where clients have their training done."""

    def executor(self) -> ThreadPoolExecutor:
        """Return what the heavy steps of a run have done in this process."""

    def learners(
        self, task: Task, everything: Sized, settings: Settings
    ) -> AbstractContextManager[Sequence[Learner]]:
        """Return learners that can be lent to any client."""


class Here:
    """Clients train in this process, one after the other."""

    def executor(self) -> ThreadPoolExecutor:
        """Return one thread: all steps wait for each other."""
        return ThreadPoolExecutor(1, "work")

    @contextmanager
    def learners(
        self, task: Task, everything: Sized, settings: Settings
    ) -> Iterator[Sequence[Learner]]:
        """Return learners that can be lent to any client."""
        number = learners_needed(settings, LEARNERS)
        yield [pooled_learner(task, everything, settings) for _ in range(number)]


HERE = Here()


@contextmanager
def pool_of(engine: str, ray_address: str | None, ray_gpus: float) -> Iterator[Pool]:
    """Have the pool of an engine that is not ``processes`` for as long as the block lasts.

    Raises
    ------
    UserError
        If Ray is asked for and cannot be had, or is not asked for and has an address.
    """
    if engine == "ray":
        from fedaq_lab.ray_engine import connected

        with connected(ray_address, ray_gpus) as cluster:
            yield cluster
        return
    refuse_address(engine, ray_address)
    yield HERE


@contextmanager
def flags_of(engine: str, ray_address: str | None, ray_gpus: float) -> Iterator[list[str]]:
    """Return flags by which other processes have their training done in the same place.

    Raises
    ------
    UserError
        As `pool_of` does.
    """
    if engine == "ray":
        from fedaq_lab.ray_engine import connected

        with connected(ray_address, ray_gpus) as cluster:
            yield [f"--ray-address={cluster.address}", f"--ray-gpus={ray_gpus:g}"]
        return
    refuse_address(engine, ray_address)
    yield []


def refuse_address(engine: str, ray_address: str | None) -> None:
    """Refuse the address of a cluster that the engine does not use.

    Raises
    ------
    UserError
        If there is one.
    """
    if engine != "ray" and ray_address is not None:
        raise UserError(f"--ray-address {ray_address}: the engine is {engine}; add --engine ray")
