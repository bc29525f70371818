"""How large and how many the chunks of an update may be."""

from math import ceil

from fedaq.codec.chunks import Chunk
from fedaq.errors import ProtocolError
from fedaq.v1 import federation_pb2 as pb

# Chunks may be a sixteenth of their largest size on average, and a few more whatever it is.
CHUNKS_OF_ONE, FEW_CHUNKS = 16, 64


def check_size(chunk: Chunk, largest: int) -> None:
    """Refuse a chunk that stands for more bytes than this."""
    # Entropy-coded or not: otherwise few bytes could ask for the memory of a whole payload.
    size = max(len(chunk.data), chunk.code_bytes)
    if size > largest:
        raise ProtocolError(
            pb.REFUSAL_REASON_WRONG_SIZE,
            f"a chunk of {size} bytes; at most {largest} are accepted",
        )


def most_chunks(code_bytes: int, chunk_bytes: int) -> int:
    """Return how many chunks an update may come in."""
    return FEW_CHUNKS + CHUNKS_OF_ONE * ceil(code_bytes / chunk_bytes)


def check_count(chunks: int, most: int) -> None:
    """Refuse more chunks than these."""
    if chunks > most:
        raise ProtocolError(
            pb.REFUSAL_REASON_WRONG_SIZE, f"more than {most} chunks of an update; send larger ones"
        )
