"""The clients' training as tasks on a Ray cluster: everything else of a run is where it always is.

A task is a pure function: the held model, the places of clients' examples and what they keep go
there; the updates, the losses and what they keep from then on come back. Where training takes no
longer than the way there and back, a task is for several clients. So Ray may carry it out again
wherever a worker dies, and the bytes are the same. The data and the task are in the object store,
once on every node; a worker process has one model, for whichever client it trains. To try again is
for Ray to do; what it gives up ends the run.

Nothing else imports Ray. It pickles what it moves, so its cluster is to be as trusted as this
process.
"""

import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any
from uuid import uuid4

from fedaq import __version__
from fedaq.codec.quantizer import Floats
from fedaq.errors import FedaqError, UserError, why
from fedaq.settings import Settings
from fedaq.tasks import Evaluation, Examples, Task, initial_model
from fedaq.tasks.state import State
from fedaq_client.sharing import Share
from fedaq_client.training import Learner, Own, Work
from fedaq_lab.batches import Batches
from fedaq_lab.one_at_work import OneAtWork, waiting
from fedaq_lab.ray_worker import KINDS, At, Failed, Place, Request, carry_out
from fedaq_lab.raylet import Raylet, raylet_of
from fedaq_lab.turns import learners_needed

# Ray's own words of its process that died: the last lines of its log, again and again.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "^Raylet is terminated|has been marked dead")
try:
    import ray
except ModuleNotFoundError as missing:
    if missing.name != "ray":
        raise
    raise UserError(
        "engine ray: Ray is not installed here; pip install 'fedaq[ray]' brings it"
    ) from None

# A worker that dies takes no other down: its task is begun again so many times.
RETRIES = 5
# Of a Ray that is started here, for what is moved; what does not fit goes to its disk.
STORE_BYTES = 400 * 1024 * 1024
# A smaller model travels with the task: to look it up in the object store takes longer.
SMALL_BYTES = 64 * 1024
# Models that are kept in the object store for clients to come.
MODELS = 16
CONNECT_S = 5.0
# Clients that receive or send while the others train.
AHEAD = 2
# Clients of a task at the most, and what the learners of all that may be at work take at the most
# for that.
CLIENTS_OF_TASK, LEARNERS_BYTES = 8, 64 * 1024 * 1024
_LOOK_S = 1.0


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process is connected to.

    Attributes
    ----------
    address : str
        Where other processes find it.
    gpus : float
        What the training of a client takes of a GPU, where it trains on one.
    threads : int
        Steps of clients that may be waited for at a time.
    raylet : Raylet
    turn : threading.Lock
        Of the thread that works, and does not wait for the cluster.
    """

    address: str
    gpus: float
    threads: int
    raylet: Raylet
    turn: threading.Lock = field(default_factory=threading.Lock)

    def executor(self) -> ThreadPoolExecutor:
        """Return threads that take turns."""
        return OneAtWork(self.threads, self.turn)

    @contextmanager
    def learners(
        self, task: Task, everything: Sized, settings: Settings
    ) -> Iterator[Sequence[Learner]]:
        """Return learners whose training the cluster does.

        Raises
        ------
        UserError
            If no node has what one client's training takes.
        """
        with _workers(self, task, everything, settings) as workers:
            # While all slots train, others receive and send.
            at_work = workers.slots * workers.clients_of_task + AHEAD
            number = learners_needed(settings, at_work)
            yield [_remote(workers, everything) for _ in range(number)]


@contextmanager
def connected(address: str | None, gpus: float) -> Iterator[Cluster]:
    """Connect to a Ray cluster, or start one here, for as long as the block lasts.

    One that the program itself is connected to is used, and left as it is.

    Raises
    ------
    UserError
        If there is none at the address.
    """
    if not gpus > 0:
        raise UserError(f"--ray-gpus {gpus:g}: a client's training takes more than 0 of a GPU")
    if ray.is_initialized():
        with _cluster(gpus) as cluster:
            yield cluster
        return
    if address is not None:
        _refuse_silent(address)
    # Else Ray makes a variable of an empty list of GPUs on machines that have none.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    quiet: dict[str, Any] = {"configure_logging": False, "log_to_driver": False}
    on_stop = signal.getsignal(signal.SIGTERM)
    try:
        if address is None:
            ray.init(
                address="local", include_dashboard=False, object_store_memory=STORE_BYTES, **quiet
            )
        else:
            ray.init(address=address, **quiet)
    except Exception as error:
        said = str(error).strip().partition("\n")[0]
        place = "Ray cannot be started here" if address is None else f"--ray-address {address}"
        raise UserError(f"{place}: {said or type(error).__name__}") from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_stop)  # Ray has put its own in its place
    try:
        with _cluster(gpus) as cluster:
            yield cluster
    finally:
        ray.shutdown()


def _refuse_silent(address: str) -> None:
    """Refuse an address at which nobody is; Ray would wait for minutes."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), CONNECT_S).close()
    except OSError as error:
        raise UserError(f"--ray-address {address}: cannot be reached: {why(error)}") from None


@contextmanager
def _cluster(gpus: float) -> Iterator[Cluster]:
    cores = int(ray.cluster_resources().get("CPU", 0))
    here = ray.get_runtime_context()
    raylet = raylet_of(here.get_node_id(), ray.nodes())
    with raylet.witnessed():
        yield Cluster(here.gcs_address, gpus, cores * CLIENTS_OF_TASK + AHEAD, raylet)


@dataclass
class _Workers:
    """What trains the clients of one run.

    Attributes
    ----------
    slots : int
        Tasks that can be carried out at a time.
    clients_of_task : int
        At the most.
    """

    slots: int
    clients_of_task: int
    task_of_ray: Any
    task: Task
    settings: Settings
    raylet: Raylet
    turn: threading.Lock
    stopped: threading.Event = field(default_factory=threading.Event)
    _models: dict[bytes, Any] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        # One more, so that who is done finds another.
        self._batches = Batches(self._carry_out, self.slots + 1, self.clients_of_task)

    def ask(self, request: Request) -> Any:
        """Wait for what a worker says.

        Raises
        ------
        FedaqError
            What it raised; or if Ray could not carry it out, or the run is stopped.
        """
        with waiting(self.turn):
            said = self._batches.ask(request)
        if isinstance(said, Failed):
            raise KINDS[said.kind](said.message)
        return said

    def _carry_out(self, requests: Sequence[Request]) -> Sequence[Any]:
        if self.stopped.is_set():
            raise FedaqError(f"{requests[0].what} was stopped")
        digests = [blake2b(each.held.data, digest_size=16).digest() for each in requests]
        models = dict(zip(digests, (each.held for each in requests), strict=True))
        places = {digest: place for place, digest in enumerate(models)}
        told = [
            replace(each, held=places[digest])
            for each, digest in zip(requests, digests, strict=True)
        ]
        ref = self.task_of_ray.remote(told, *(self._model(*each) for each in models.items()))
        return self._result(ref, requests[0].what)

    def _model(self, digest: bytes, held: Floats) -> Any:
        """Return a model, or where a large one is: in the object store, once for all clients."""
        if held.nbytes <= SMALL_BYTES:
            return held
        with self._lock:
            found = self._models.pop(digest, None)
            self._models[digest] = ray.put(held) if found is None else found
            if len(self._models) > MODELS:
                del self._models[next(iter(self._models))]
            return self._models[digest]

    def _result(self, ref: Any, what: str) -> Sequence[Any]:
        while True:
            try:
                done: Sequence[Any] = ray.get(ref, timeout=_LOOK_S)
                return done
            except ray.exceptions.GetTimeoutError:
                self.raylet.check()
                if self.stopped.is_set():
                    ray.cancel(ref, force=True)
                    raise FedaqError(f"{what} was stopped") from None
            except ray.exceptions.RayError as error:
                self.raylet.check()
                raise FedaqError(f"{what}: {_reason(error)}") from None


@contextmanager
def _workers(
    cluster: Cluster, task: Task, everything: Sized, settings: Settings
) -> Iterator[_Workers]:
    resources: dict[str, float] = {"num_cpus": settings.threads or 1}
    if settings.device == "cuda":
        resources["num_gpus"] = cluster.gpus
    slots = _slots(resources)
    place = Place(__version__, tuple(sys.path), ray.put(task), _put(everything), settings)
    # A worker keeps the model that it has, and its GPU, for the clients to come. Ray would keep a
    # record of each task, so that its memory grew with the rounds.
    options: dict[str, Any] = {
        **resources, "max_retries": RETRIES, "max_calls": 0, "enable_task_events": False,
    }  # fmt: skip
    at = At(uuid4().hex, ray.put(place))
    task_of_ray = ray.remote(**options)(_knowing(at, carry_out))
    each = _clients_of_task(task, settings, slots)
    found = _Workers(slots, each, task_of_ray, task, settings, cluster.raylet, cluster.turn)
    try:
        yield found
    finally:
        found.stopped.set()


def _knowing(at: At, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that knows the place: one among its arguments is traced at every call."""

    def known(*arguments: Any) -> Any:
        return function(at, *arguments)

    known.__name__ = known.__qualname__ = function.__name__
    return known


def _clients_of_task(task: Task, settings: Settings, slots: int) -> int:
    """Return for how many clients a task may be: each has a learner here meanwhile."""
    model = initial_model(task, settings.seed, settings.start_from)
    # In a learner: the module, the held model, and what is on the way.
    learner_bytes = 3 * 4 * sum(each.numel() for each in model.parameters())
    fit = LEARNERS_BYTES // (slots * learner_bytes)
    return max(1, min(CLIENTS_OF_TASK, fit, settings.taking_part // (2 * slots)))


def _slots(resources: dict[str, float]) -> int:
    names = {"num_cpus": "CPU", "num_gpus": "GPU"}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    each = [
        min(int(node.get(names[name], 0) / amount) for name, amount in resources.items())
        for node in nodes
    ]
    if not sum(each):
        asked = " and ".join(f"{amount:g} {names[name]}" for name, amount in resources.items())
        raise UserError(f"the training of a client takes {asked}, which no node of Ray's has")
    return sum(each)


def _put(everything: Sized) -> Any:
    if not isinstance(everything, Examples):
        return ray.put(everything)
    # Arrays lie in the object store as they are: all workers of a node read the same memory.
    return ray.put((everything.inputs.numpy(), everything.targets.numpy()))


def _reason(error: Exception) -> str:
    if isinstance(error, ray.exceptions.WorkerCrashedError):
        return f"its Ray worker died, {RETRIES + 1} times"
    said = str(error).strip()
    missing = re.search("No module named '([^']+)'", said)
    if missing is not None:
        return f"a Ray worker finds no module {missing[1]!r}; every node of the cluster needs it"
    first, _, _ = said.partition("\n")
    return f"Ray gave it up: {type(error).__name__}: {first}"


class _RemoteLearner(Learner):
    """A learner that keeps a client's state here, and has workers do what takes long."""

    workers: _Workers
    _share: Share
    _own: Own

    def lend(self, share: Share, own: Own) -> None:
        """Become another client's; its examples stay where they are."""
        super().lend(Share(None), replace(own, buffers={}))
        if share.trained is not None:
            self._data = share.trained
        self._held_back = share.held_back
        self._share, self._own = share, own

    def taken_back(self) -> Own:
        """Return what the client keeps, to whom this learner was lent."""
        return replace(super().taken_back(), buffers=self._own.buffers)

    def validate(self) -> tuple[Evaluation, int] | None:
        """Have a worker test the held model on what is held back, if something is."""
        if self._held_back is None:
            return None
        request = Request(self.held, self._share, self._own.buffers)
        evaluation, buffers = self.workers.ask(request)
        self._own = replace(self._own, buffers=buffers)
        return evaluation, len(self._held_back)

    def work(self, work: Work, progress: Callable[[int, int], None]) -> tuple[float, State]:
        """Have a worker train from the held model; leave in `weights` what has changed."""
        request = Request(self.held, self._share, self._own.buffers, work)
        loss, update, state, buffers = self.workers.ask(request)
        self.weights[:] = update
        self._own = replace(self._own, buffers=buffers)
        return loss, state


def _remote(workers: _Workers, everything: Sized) -> Learner:
    settings = workers.settings
    learner = _RemoteLearner(
        workers.task, everything, settings.seed, start_from=settings.start_from
    )
    learner.workers = workers
    return learner
