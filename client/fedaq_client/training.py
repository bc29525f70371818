"""What a client learns with: the model in one flat array, and its own data."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedaq.codec import coding, holding, payload, sparse, statistics
from fedaq.codec.chunks import Chunk
from fedaq.codec.given import NOTHING, Dither, Past
from fedaq.codec.model import Kind
from fedaq.codec.payload import Payload
from fedaq.codec.quantizer import Floats, Key, Spread, derive_seed
from fedaq.codec.sparse import Sparsity
from fedaq.modules.bound import Bound
from fedaq.tasks import (
    Evaluation,
    Task,
    Training,
    TrainingContext,
    evaluated,
    initial_model,
    signature_of,
    subset,
)
from fedaq.tasks.context import CPU, Received
from fedaq.tasks.state import Kept, State
from fedaq.v1 import federation_pb2 as pb
from fedaq_client.buffers import StayingBuffers
from fedaq_client.held_file import HeldFile, Holding, Unsent
from fedaq_client.sharing import Share

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """What the training of a round follows from, besides the held model and the client's examples.

    Attributes
    ----------
    training : Training
        As it is in this round.
    seed : int
        What is drawn follows from it.
    round, rounds : int
    measure : bool
        As of `Learner.train`.
    state : dict
        What the task's training kept of the client's last round.
    """

    training: Training
    seed: int
    round: int
    rounds: int
    measure: bool = False
    state: State = field(default_factory=dict)


@dataclass(frozen=True)
class Own:
    """What a client keeps from round to round besides the model that it holds.

    Attributes
    ----------
    unsent : dict of int to float32
        What its last update left unsent, by the tensor.
    state : dict
        What the task's training keeps.
    buffers : dict of str to Tensor
        What does not travel of its module and has changed (a counter of batches).
    """

    unsent: Unsent = field(default_factory=dict)
    state: State = field(default_factory=dict)
    buffers: dict[str, Tensor] = field(default_factory=dict)


class Learner:
    """A model and the client's data.

    Parameters
    ----------
    task : Task
    data : Sized
        The client's training examples.
    seed : int
        Of the run, if it is known: the model that the run begins with follows from it.
    device : torch.device
        Where it trains; the arrays stay in the processor's memory.
    state : Path, optional
        Folder that keeps, for a client that is started again, the state of the training, the model
        that is held, and what was left unsent.
    start_from : Path, optional
        Model file that has what never travels.
    held_back : Sized, optional
        The client's examples that are not trained with.
    around : callable
        Returns what every training and every test is done within.

    Attributes
    ----------
    task : Task
    model : nn.Module
    folder : Path, optional
        As `state`.
    held : float32, shape (parameters,)
        The model that the server knows this client to hold: first the one of the seed, then
        what was received.
    past : Past
        What its last differences had.
    weights : float32, shape (parameters,)
        Shares its memory with the model that is trained. After `train`, until the next, it
        holds the update, and what was left unsent before; of statistics, in their units.
    """

    def __init__(
        self,
        task: Task,
        data: Sized,
        seed: int = 0,
        device: torch.device = CPU,
        state: Path | None = None,
        start_from: Path | None = None,
        held_back: Sized | None = None,
        around: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.task = task
        self.device = device
        self._everything = data
        self._data = data
        self._held_back = held_back
        self.model = initial_model(task, seed, start_from)
        self.spec = signature_of(task, self.model)
        self.model.to(device)
        self._bound = Bound(self.model, self.spec)
        self.weights = self._bound.flat
        self._staying = StayingBuffers(self.model, self.spec)
        self.held = self.weights.copy()
        self.past = Past.none(self.spec.parameters)
        self._around = around
        self.folder = state
        self._state = Kept(state)
        self._held_file: HeldFile | None = None
        self._run_id = ""
        self._unsent: Unsent = {}
        self._unsent_then: tuple[int, Unsent] = (0, {})
        self._whole: Floats | None = None

    def resume(self, name: str) -> None:
        """Hold, before the first join under a name, what its file says that it held."""
        if self.folder is None or self._held_file is not None:
            return
        self._held_file = HeldFile(self.folder, name, self.spec)
        holding = self._held_file.read()
        if holding is not None:
            self.held[:] = holding.model
            self.past.noted[:] = holding.past
            self._run_id = holding.run_id
            self._unsent, self._unsent_then = holding.before, (holding.round, holding.after)

    def begin(self, run_id: str) -> None:
        """Take part in a run; what another one left unsent is forgotten."""
        self._state.begin(run_id)
        if run_id != self._run_id:
            if self._run_id:
                log.info("another run: what was left unsent in the last one is forgotten")
            self._run_id, self._unsent, self._unsent_then = run_id, {}, (0, {})

    def save(self) -> None:
        """Keep what is held and unsent on the disk, if there is a folder for it."""
        if self._held_file is not None:
            number, after = self._unsent_then
            self._held_file.write(
                Holding(self._run_id, number, self.held, self.past.noted, self._unsent, after)
            )

    def end(self) -> None:
        """Forget what only further rounds of the run would need."""
        self._state.end()
        if self._held_file is not None:
            self._held_file.remove()

    def lend(self, share: Share, own: Own) -> None:
        """Become another client's, whose examples are a share of the data that this one was given.

        What it holds is for the caller to write to `held` and `past`.
        """
        every = self._everything
        self._data = every if share.trained is None else subset(every, share.trained)
        self._held_back = None if share.held_back is None else subset(every, share.held_back)
        self._unsent, self._unsent_then = {}, (0, own.unsent)
        self._state.lend(own.state)
        self._staying.put(own.buffers)

    def taken_back(self) -> Own:
        """Return what the client keeps, to whom this learner was lent."""
        return Own(self._unsent_then[1], self._state.latest, self._staying.changed())

    @property
    def examples(self) -> int:
        """Number of training examples."""
        return len(self._data)

    def validate(self) -> tuple[Evaluation, int] | None:
        """Test the held model on what is held back, if something is.

        Returns
        -------
        Evaluation
        int
            Number of examples.
        """
        if self._held_back is None:
            return None
        self._bound.load(self.held)
        # A loop of the task's own may rely on the modes that it finds.
        modes = [(module, module.training) for module in self.model.modules()]
        with self._around():
            found = evaluated(self.task, self.model, self._held_back)
        for module, mode in modes:
            module.training = mode
        return found, len(self._held_back)

    def train(
        self,
        training: Training,
        seed: int,
        name: str,
        round_number: int,
        rounds: int = 0,
        progress: Callable[[int, int], None] = lambda done, total: None,
        *,
        measure: bool = False,
    ) -> float:
        """Train from the held model, leave the update in `weights`, return the mean loss.

        A round may be trained again, if the server was stopped in it: it gives the same update.

        Parameters
        ----------
        training : Training
        seed, name, round_number
            Of the run, of the client, and from 1: what is drawn follows from them.
        rounds : int
            Of the run; 0 where `round_number` is the last.
        progress : callable
            Told how far it is, if the task tells it.
        measure : bool
            Whether means and variances in the update are those of the held model, if the task can
            measure them, and not those that training left.
        """
        rounds = rounds or round_number
        takes_context = self.task.takes_context
        work = Work(
            training.in_round(round_number, rounds),
            derive_seed(seed, "train", name, round_number),
            round_number,
            rounds,
            measure,
            self._state.before(name, round_number) if takes_context else {},
        )
        loss, state = self.work(work, progress)
        # What training that failed has left in an optimizer would spoil every later round.
        if takes_context and isfinite(self.weights.sum(dtype=np.float64)):
            self._state.after(round_number, state)
        self._add_unsent(round_number)
        return loss

    def adopt(self, trained: Floats, round_number: int) -> None:
        """Leave the update in `weights` of which others trained the held model to this one.

        Parameters
        ----------
        trained : float32, shape (parameters,)
        round_number : int
            From 1.
        """
        np.copyto(self.weights, trained)
        self._form_update(())
        self._add_unsent(round_number)

    def _add_unsent(self, round_number: int) -> None:
        self._whole = None
        if self._unsent_then[0] < round_number:
            self._unsent = self._unsent_then[1]
        for tensor, values in self._unsent.items():
            self.weights[self.spec.slices[tensor]] += values

    def work(self, work: Work, progress: Callable[[int, int], None]) -> tuple[float, State]:
        """Train from the held model, leave in `weights` what has changed, and nothing else.

        Returns
        -------
        float
            The mean loss.
        dict
            What the task's training keeps for the next round.
        """
        with self._around():
            measured = self._measured(work.seed) if work.measure else []
            self._bound.load(self.held)
            torch.manual_seed(work.seed)
            arguments = (self.model, self._data, work.training, work.seed)
            if self.task.takes_context:
                context = TrainingContext(
                    round=work.round,
                    rounds=work.rounds,
                    received=Received(self.spec, self.held, self.device),
                    generator=torch.Generator().manual_seed(work.seed),
                    state=work.state,
                    device=self.device,
                    progress=progress,
                )
                loss = self.task.train(*arguments, context=context)
            else:
                loss = self.task.train(*arguments)
            rounded = self._bound.gather()
            for part, values in measured:
                self.weights[part] = values
            self._form_update(rounded)
            return loss, work.state

    def _measured(self, seed: int) -> list[tuple[slice, Floats]]:
        """Return the statistics of the held model on the client's data, and where they belong."""
        if self.task.measures is None:
            return []
        # What does not travel (a counter of batches) is as it was afterwards.
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        self._bound.load(self.held)
        torch.manual_seed(seed)
        self.task.measures(self.model, self._data, seed)
        self._bound.gather()
        parts = statistics.normalization(self.spec)
        measured = [(part, self.weights[part].copy()) for part in parts]
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        return measured

    def receive(self) -> None:
        """Write the held model to the module."""
        self._bound.load(self.held)

    def differs(self) -> bool:
        """Tell whether the module has changed since it received the held model.

        What changed is in `weights` then.
        """
        self._form_update(self._bound.gather())
        return bool(self.weights.any())

    def _form_update(self, rounded: Sequence[tuple[slice, torch.dtype]]) -> None:
        """Turn the trained values in `weights` into what changed."""
        # Training began from what was left of the values in the module's own type.
        starts = [
            torch.from_numpy(self.held[part]).to(dtype).to(torch.float32).numpy()
            for part, dtype in rounded
        ]
        changes = [self.weights[p] - start for (p, _), start in zip(rounded, starts, strict=True)]
        np.subtract(self.weights, self.held, out=self.weights)
        for (part, _), change in zip(rounded, changes, strict=True):
            self.weights[part] = change
        for tensor, part in zip(self.spec.tensors, self.spec.slices, strict=True):
            if tensor.kind == Kind.SERVER:
                self.weights[part] = 0
        own = self.spec.statistics
        unit = statistics.units(self.spec, self.held[own], statistics.UPLINK)
        statistics.in_units(self.weights[own], unit)

    def add(self, header: Payload, coded: Iterable[Chunk]) -> None:
        """Add a difference to the model that is held."""
        before = statistics.taken_out(header.spec, self.held)
        for chunk in coded:
            values = coding.decode(header, chunk, self.past)
            holding.add_difference(header, values, self.held, self.past)
        self.past.remember_nothing(header)
        statistics.put_back(header.spec, self.held, before)

    def spreads(self) -> tuple[Spread, ...]:
        """Return the spreads of the update, per tensor."""
        return payload.tensor_spreads(self.spec, self.weights.__getitem__)

    def coded(self, update: Payload, keys: tuple[Key, ...], plan: pb.RoundPlan) -> Iterator[Chunk]:
        """Yield the chunks of an update, coded as a round's plan says."""
        known = NOTHING if plan.keep else Dither(keys.__getitem__)
        for offset, length in update.chunks(plan.chunk_bytes):
            chunk, _ = coding.encode(
                update, self.weights.__getitem__, keys, offset, length, plan.round,
                squeeze=plan.entropy, nearest=plan.keep > 0, known=known,
            )  # fmt: skip
            yield chunk

    def leave_out(self, sparsity: Sparsity) -> None:
        """Leave in `weights` what is kept of the update; the rest is left for the next one."""
        self._whole = self.weights.copy()
        self.weights[:] = sparsity.kept_of(self.spec, self._whole.__getitem__)

    def keep_rest(self, round_number: int, update: Payload) -> None:
        """Keep what is not sent of a round's update, for the rounds after it.

        It is added to the next update (error feedback). Where values were left out, rounding is
        kept, too. Of statistics nothing is kept: the next update has them anew.
        """
        if self._whole is None:
            self.keep_unsent(round_number, (code.bits > 0 for code in update.codes))
        else:
            self._unsent_then = (round_number, sparse.lost(update, self.weights, self._whole))

    def keep_unsent(self, round_number: int, sent: Iterable[bool]) -> None:
        """Keep the tensors of a round's update that are not sent."""
        unsent = {
            tensor: self.weights[part].copy()
            for tensor, (part, is_sent) in enumerate(zip(self.spec.slices, sent, strict=True))
            if not is_sent and self.spec.tensors[tensor].kind == Kind.CODED
        }
        self._unsent_then = (round_number, unsent)
