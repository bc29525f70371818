"""The model on its way down: encoded once, the same immutable bytes for every client."""

from dataclasses import dataclass

from fedaq import payload
from fedaq.payload import Payload
from fedaq.quantizer import Floats
from fedaq.v1 import federation_pb2 as pb


@dataclass(frozen=True)
class Broadcast:
    """A coded model: its header, and serialized server messages ready to be written."""

    payload: Payload
    frames: tuple[bytes, ...]

    def codes(self) -> bytes:
        """Return the code bytes of all chunks."""
        return b"".join(pb.ServerMessage.FromString(f).chunk.data for f in self.frames[1:])


def encode_broadcast(
    header: Payload, model: Floats, seed: int, round_number: int, chunk_bytes: int
) -> Broadcast:
    """Code the model once for all clients."""
    keys = payload.transfer_keys(header.spec, seed, "downlink", round_number)
    frames = [pb.ServerMessage(model=payload.to_message(header, round_number)).SerializeToString()]
    for offset, length in header.chunks(chunk_bytes):
        data = payload.encode_chunk(header, model, keys, offset, length)
        chunk = pb.Chunk(round=round_number, offset=offset, data=data)
        frames.append(pb.ServerMessage(chunk=chunk).SerializeToString())
    return Broadcast(header, tuple(frames))


def decode_broadcast(broadcast: Broadcast, out: Floats) -> None:
    """Write into `out` the model as the clients receive it, ``Q(w_k)``."""
    for frame in broadcast.frames[1:]:
        chunk = pb.ServerMessage.FromString(frame).chunk
        payload.decode_chunk(broadcast.payload, chunk.offset, chunk.data, out)
