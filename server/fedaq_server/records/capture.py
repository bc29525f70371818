"""Payloads kept on disk as they were sent, for `fedaq inspect` and people who measure them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedaq.codec import model
from fedaq.codec.given import Dither, Given
from fedaq.codec.model import ModelSpec
from fedaq.files import make_folder, write
from fedaq.v1 import federation_pb2 as pb


@dataclass(frozen=True)
class Capture:
    """A folder of captured payloads."""

    folder: Path

    def keep(
        self,
        spec: ModelSpec,
        header: pb.PayloadHeader,
        chunks: Sequence[pb.Chunk],
        sender: str,
        known: Given | None = None,
    ) -> None:
        """Write one payload to ``round-0001-<sender>.payload``.

        Of an update, `known` is what its codes were coded by.
        """
        make_folder(self.folder)
        captured = pb.CapturedPayload(
            model=model.to_message(spec), header=header, chunks=chunks, sender=sender
        )
        if isinstance(known, Dither):
            keys = map(known.key_of, range(len(spec.tensors)))
            captured.keys.extend(key.number for key in keys)
        path = self.folder / f"round-{header.round:04}-{sender}.payload"
        write(path, captured.SerializeToString())

    def keep_sent(
        self, spec: ModelSpec, messages: Sequence[bytes], sender: str, pasts: Sequence[bytes] = ()
    ) -> None:
        """Write a payload of which the server's messages are at hand: its header, then its chunks.

        Of a difference, `pasts` are what clients knew of the values of each chunk. `sender` tells
        what goes down to all, ``server``, from what only late clients need.
        """
        header, *chunks = map(pb.ServerMessage.FromString, messages)
        for message, past in zip(chunks, pasts, strict=False):
            message.chunk.past = past
        self.keep(spec, header.model, [message.chunk for message in chunks], sender)
