"""What masked updates take, keys and shares included: no more than this."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedaq.codec.common_grid import largest_code, sum_bits
from fedaq.codec.payload import TensorCode
from fedaq.privacy.layout import layout_of
from fedaq.privacy.neighbours import FEWEST, circle_of
from fedaq_server.privacy.release import Release
from fedaq_server.schemes.scheme import RoundState

# Of protobuf's encoding, at the most: fields of a message, and a number beside what it is of.
_FIELDS, _NUMBER = 24, 8
_KEYS, _SEALED, _SHARE = 86, 50, 17


@dataclass(frozen=True)
class Bytes:
    """Payload bytes of one client in one round, besides what is broadcast.

    Attributes
    ----------
    up, down : int
    """

    up: int
    down: int


def masked_bytes(
    state: RoundState, grid: tuple[TensorCode, ...], counts: Sequence[int], proof_bytes: int
) -> Mapping[str, Bytes]:
    """Return what each client sends and is sent at the most.

    Parameters
    ----------
    state : RoundState
    grid : tuple of TensorCode
    counts : sequence of int
        How many values of each tensor are sent.
    proof_bytes : int
        Of a certificate and a signature; 0 where keys are not signed.
    """
    widths = widths_of(grid, state.total_weight, state.release)
    codes = layout_of(counts, widths).packed_bytes
    keys = key_bytes(state, proof_bytes)
    return dict.fromkeys(state.clients, Bytes(codes + keys.up, keys.down))


def key_bytes(state: RoundState, proof_bytes: int) -> Bytes:
    """Return what keys and shares take of each client at the most."""
    peers = circle_of(max(len(state.clients), FEWEST)).degree
    longest = max(map(len, state.clients))
    keys = _KEYS + proof_bytes + _FIELDS
    up = keys + peers * (_SEALED + _SHARE + 3 * _NUMBER) + _SHARE + 4 * _FIELDS
    return Bytes(up, peers * (keys + longest + _SEALED + 4 * _NUMBER) + 4 * _FIELDS)


def widths_of(
    grid: tuple[TensorCode, ...], total_weight: int, release: Release | None = None
) -> tuple[int, ...]:
    """Return the bits of a masked value, per tensor; 0 for one that is not sent."""
    noise = 0 if release is None else 2 * release.room
    return tuple(
        sum_bits(largest_code(code), total_weight, noise) if code.bits else 0 for code in grid
    )
