"""What masked updates take, keys and shares included: no more than this."""

from collections.abc import Mapping
from dataclasses import dataclass

from fedaq.codec.common_grid import sum_bits
from fedaq.codec.payload import TensorCode
from fedaq.privacy.layout import layout_of
from fedaq.privacy.neighbours import circle_of
from fedaq_server.privacy.release import Release
from fedaq_server.schemes.scheme import RoundState

# Of protobuf's encoding, at the most: fields of a message, and a number beside what it is of.
_FIELDS, _NUMBER = 24, 8
_KEYS, _SEALED, _SHARE = 3 * 34, 94, 33


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
    state: RoundState, grid: tuple[TensorCode, ...], proof_bytes: int
) -> Mapping[str, Bytes]:
    """Return what each client sends and is sent at the most.

    Parameters
    ----------
    state : RoundState
    grid : tuple of TensorCode
    proof_bytes : int
        Of a certificate and a signature; 0 where keys are not signed.
    """
    widths = widths_of(grid, state.total_weight, state.release)
    codes = layout_of(state.spec.elements, widths).packed_bytes
    peers = circle_of(len(state.clients)).degree
    longest = max(map(len, state.clients))
    keys = _KEYS + proof_bytes + _FIELDS
    up = codes + keys + peers * (_SEALED + _SHARE + 3 * _NUMBER) + _SHARE + 4 * _FIELDS
    down = peers * (keys + longest + _SEALED + 4 * _NUMBER) + 4 * _FIELDS
    return dict.fromkeys(state.clients, Bytes(up, down))


def widths_of(
    grid: tuple[TensorCode, ...], total_weight: int, release: Release | None = None
) -> tuple[int, ...]:
    """Return the bits of a masked value, per tensor; 0 for one that is not sent."""
    noise = 0 if release is None else 2 * release.room
    return tuple(sum_bits(code.bits, total_weight, noise) if code.bits else 0 for code in grid)
