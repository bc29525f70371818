"""Learners as the settings of a client say."""

from collections.abc import Callable, Sized
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from fedaq.settings import Settings
from fedaq.tasks import Task
from fedaq.tasks.hardware import device_named
from fedaq.tasks.partition import Partition
from fedaq_client.sharing import divided, local_data
from fedaq_client.training import Learner


def learner_of(
    task: Task,
    everything: Sized,
    part: Partition,
    settings: Settings,
    *,
    state: Path | None = None,
    around: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Learner:
    """Return a client's learner, with its part of the examples, less those that it holds back.

    Raises
    ------
    UserError
        If there are no examples, or they cannot be shared out like that.
    """
    mine = local_data(everything, part, settings.partition, settings.seed)
    mine, held_back = divided(mine, task.validation_share, settings.seed)
    return Learner(
        task,
        mine,
        settings.seed,
        device_named(settings.device),
        state=state,
        start_from=settings.start_from,
        held_back=held_back,
        around=around,
    )


def pooled_learner(task: Task, everything: Sized, settings: Settings) -> Learner:
    """Return a learner that can be lent to any client with a share of `everything`."""
    device = device_named(settings.device)
    return Learner(task, everything, settings.seed, device, start_from=settings.start_from)
