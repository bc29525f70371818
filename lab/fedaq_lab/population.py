"""Many clients that take turns with few learners.

A client that waits for its next round is a number: that of the model that it holds, which is kept
once for all that hold the same, and what is its own (`fedaq_client.training.Own`),
if there is something. What has not been used for long lies on the disk (`Shelf`).
"""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from fedaq.codec import model
from fedaq.tasks.state import from_bytes, to_bytes
from fedaq_client.session import Session
from fedaq_client.sharing import Share
from fedaq_client.training import Learner, Own
from fedaq_lab.shelf import Shelf

T = TypeVar("T")

# For what waiting clients keep; the rest of it is in the memory of the system's files, while there
# is room.
MEMORY_BYTES = 1024 * 1024


class Population:
    """The clients of a run on this machine.

    Parameters
    ----------
    learners : sequence of Learner
        New ones, of the same model and all of the data.
    shares : sequence of Share
        What each client has of the data.
    folder : Path
        For what does not fit into the memory that is meant for it.
    """

    def __init__(
        self,
        learners: Sequence[Learner],
        shares: Sequence[Share],
        folder: Path,
    ) -> None:
        self._shares = shares
        self._shelf = Shelf(folder, MEMORY_BYTES)
        self._lock = threading.Lock()
        self._first = learners[0].held.copy()
        self._first_digest = model.digest(self._first, learners[0].past.noted)
        # Of each client the digest of its model, and of how many each model is.
        self._digests = np.full(len(shares), self._first_digest, f"V{model.DIGEST_BYTES}")
        self._holders: Counter[bytes] = Counter()
        self._with_own = np.zeros(len(shares), bool)
        # Of what each learner has in its memory.
        self._loaded = {id(learner): self._first_digest for learner in learners}
        self._free: asyncio.LifoQueue[Learner] = asyncio.LifoQueue()
        for learner in reversed(learners):
            self._free.put_nowait(learner)

    @property
    def models(self) -> int:
        """Number of different models that are kept, besides the first."""
        return len(self._holders)

    @asynccontextmanager
    async def turn(self, client: int, session: Session) -> AsyncIterator[None]:
        """Lend a client's session, from 0, a learner for as long as the block lasts."""
        learner = await self._free.get()
        try:
            # At its join a client has nothing yet: handing that to a thread would take longest.
            away = asyncio.to_thread if session.welcomed else _at_once
            session.digest = await away(self._lend, learner, client)
            session.learner = learner
            try:
                yield
            finally:  # also where the round was given up
                await away(self._take_back, learner, client, session.digest)
        finally:
            self._free.put_nowait(learner)

    def close(self) -> None:
        """Remove what lies on the disk."""
        self._shelf.close()

    def _lend(self, learner: Learner, client: int) -> bytes:
        with self._lock:
            digest: bytes = self._digests[client].tobytes()
            if self._loaded[id(learner)] != digest:
                self._load(learner, digest)
            kept = self._with_own[client]
            own = _unpacked(self._shelf.get(_of(client))) if kept else Own()
            learner.lend(self._shares[client], own)
            return digest

    def _take_back(self, learner: Learner, client: int, digest: bytes) -> None:
        with self._lock:
            digest = digest or model.digest(learner.held, learner.past.noted)
            self._loaded[id(learner)] = digest
            self._note(learner, client, digest)
            own = learner.taken_back()
            if own.unsent or own.state or own.buffers:
                self._shelf.put(_of(client), _packed(own))
                self._with_own[client] = True
            elif self._with_own[client]:
                self._shelf.drop(_of(client))
                self._with_own[client] = False

    def _note(self, learner: Learner, client: int, digest: bytes) -> None:
        before = self._digests[client].tobytes()
        if digest == before:
            return
        self._digests[client] = digest
        if digest != self._first_digest:
            if digest not in self._holders:
                content = learner.held.tobytes() + learner.past.noted.tobytes()
                self._shelf.put(digest.hex(), content)
            self._holders[digest] += 1
        if before != self._first_digest:
            self._holders[before] -= 1
            if not self._holders[before]:
                del self._holders[before]
                self._shelf.drop(before.hex())

    def _load(self, learner: Learner, digest: bytes) -> None:
        self._loaded[id(learner)] = digest
        if digest == self._first_digest:
            learner.held[:] = self._first
            learner.past.noted.fill(0)
            return
        content = self._shelf.get(digest.hex())
        learner.held[:] = np.frombuffer(content, np.float32, learner.held.size)
        learner.past.noted[:] = np.frombuffer(content, np.uint8, offset=learner.held.nbytes)


async def _at_once(function: Callable[..., T], *arguments: Any) -> T:
    return function(*arguments)


def _of(client: int) -> str:
    return f"client {client}"


def _packed(own: Own) -> bytes:
    unsent = {tensor: torch.from_numpy(values) for tensor, values in own.unsent.items()}
    return to_bytes({"unsent": unsent, "state": own.state, "buffers": own.buffers})


def _unpacked(content: bytes) -> Own:
    kept = from_bytes(content)
    unsent = {tensor: values.numpy() for tensor, values in kept["unsent"].items()}
    return Own(unsent, kept["state"], kept["buffers"])
