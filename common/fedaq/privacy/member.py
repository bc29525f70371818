"""A client in the masking of one round: what it says, and what it refuses to say.

The steps come in this order, each once: `keys`, `share`, `receive`, `masks`, `reveal`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from fedaq.errors import FedaqError
from fedaq.privacy.keys import (
    Authority,
    Keys,
    PublicKeys,
    Signer,
    agreed,
    derived,
    mask_key,
    seal,
    statement,
    unsealed,
)
from fedaq.privacy.masks import Mask
from fedaq.privacy.neighbours import FEWEST, Circle
from fedaq.privacy.shares import SHARE_BYTES, is_share, split


class MaskingError(FedaqError):
    """The server asks for what would give a client away, or nothing can be masked with."""


@dataclass(frozen=True)
class Peer:
    """Another client of the round, or oneself: its name, and its keys."""

    name: str
    keys: PublicKeys


@dataclass(frozen=True)
class Share:
    """A holder's shares of both secrets of a client."""

    mask_key: bytes
    seed: bytes


class Member:
    """One client in one round.

    Parameters
    ----------
    name : str
    context : bytes
        Of the run and the round.
    signer : Signer, optional
        What its keys are signed with.
    authority : Authority, optional
        By which the keys of others must be proved; None where nobody's can be.
    """

    def __init__(
        self,
        name: str,
        context: bytes,
        signer: Signer | None = None,
        authority: Authority | None = None,
    ) -> None:
        self._name, self._context = name, context
        self._authority = authority
        self._keys = Keys()
        self.public = self._keys.public()
        if signer is not None:
            signature = signer.sign(statement(context, name, self.public))
            self.public = replace(self.public, certificate=signer.certificate, signature=signature)
        self._number = 0
        self._peers: dict[int, Peer] = {}
        self._threshold = 0
        self._held: dict[int, Share] = {}
        self._members: frozenset[int] = frozenset()
        self._revealed = False

    def share(self, number: int, peers: Mapping[int, Peer], circle: Circle) -> dict[int, bytes]:
        """Share this client's secrets out; return what goes to each neighbour, sealed.

        Parameters
        ----------
        number : int
            Of this client, from 1.
        peers : mapping of int to Peer
            Its neighbours.
        circle : Circle
            How many there are to be, and how many holders join a secret.

        Raises
        ------
        MaskingError
            If these would not hide it.
        """
        if self._peers:
            raise MaskingError("the server asks for a second sharing in one round")
        self._check(number, peers, circle)
        self._number, self._peers = number, dict(peers)
        self._threshold = circle.threshold
        holders = [number, *peers]
        of_key = split(self._keys.mask_secret, holders, circle.threshold)
        of_seed = split(self._keys.seed, holders, circle.threshold)
        self._held[number] = Share(of_key[number], of_seed[number])
        return {
            one: seal(self._sealing_key(peer, number, one), of_key[one] + of_seed[one])
            for one, peer in peers.items()
        }

    def receive(self, sealed: Mapping[int, bytes]) -> set[int]:
        """Take the shares that neighbours sent; return those of whom they do not fit."""
        unfit = set()
        for one, words in sealed.items():
            peer = self._peers.get(one)
            opened = None
            if peer is not None:
                opened = unsealed(self._sealing_key(peer, one, self._number), words)
            if opened is None or len(opened) != 2 * SHARE_BYTES:
                unfit.add(one)
                continue
            share = Share(opened[:SHARE_BYTES], opened[SHARE_BYTES:])
            if is_share(share.mask_key) and is_share(share.seed):
                self._held[one] = share
            else:
                unfit.add(one)
        return unfit

    def masks(self, members: Collection[int]) -> list[Mask]:
        """Return the masks of this client's update, with those neighbours that are members.

        Raises
        ------
        MaskingError
            If too few are, or the server asked before.
        """
        if self._members:
            raise MaskingError("the server asks for a second masked update in one round")
        with_these = frozenset(members) & self._peers.keys()
        if len(with_these) + 1 < self._threshold:
            raise MaskingError(
                f"the server leaves {len(with_these)} clients around this one; with itself, "
                f"{self._threshold} are needed"
            )
        self._members = with_these | {self._number}
        use, own = pair_use(self._context), mask_key(self._keys.mask_secret)
        return [
            Mask(own_mask_seed(self._keys.seed, self._context), 1),
            *(
                Mask(
                    agreed(own, self._peers[one].keys.mask, use),
                    pair_sign(self._number, one),
                )
                for one in sorted(with_these)
            ),
        ]

    def reveal(self, counted: Collection[int], gone: Collection[int]) -> dict[int, bytes]:
        """Return the shares by which masks are taken off the sum, by number.

        Of those whose update counts, that of their seed; of those who are gone, that of their key
        for masks. Never both of one, and once.

        Raises
        ------
        MaskingError
            If the server asks again, or for both, or lets too few updates count.
        """
        counts, lost = frozenset(counted), frozenset(gone)
        if self._revealed:
            raise MaskingError("the server asks for shares twice in one round")
        if counts & lost or counts | lost != self._members:
            raise MaskingError("the server asks for both secrets of a client, or of a stranger")
        if self._number not in counts:
            raise MaskingError(
                "the server asks for shares, and this client's update does not count"
            )
        if len(counts) < self._threshold:
            raise MaskingError(
                f"the server lets {len(counts)} updates around this one count; "
                f"{self._threshold} are needed"
            )
        self._revealed = True
        held = self._held
        seeds = {one: held[one].seed for one in sorted(counts & held.keys())}
        return seeds | {one: held[one].mask_key for one in sorted(lost & held.keys())}

    def _check(self, number: int, peers: Mapping[int, Peer], circle: Circle) -> None:
        holders = len(peers) + 1
        if number < 1 or number in peers or min(peers, default=1) < 1:
            raise MaskingError("the server numbers the clients of the round wrongly")
        if holders < FEWEST:
            raise MaskingError(f"{holders} clients are in the round; {FEWEST} hide each other")
        if not holders < 2 * circle.threshold <= 2 * holders:
            raise MaskingError(
                f"the server lets {circle.threshold} of {holders} join a secret; more than half "
                "are needed"
            )
        every = [self.public, *(peer.keys for peer in peers.values())]
        if len({keys.mask for keys in every}) < holders:
            raise MaskingError("the server sends one key as that of two clients")
        if self._authority is None:
            return
        for peer in peers.values():
            why = self._authority.why_not(self._context, peer.name, peer.keys)
            if why:
                raise MaskingError(f"of {peer.name}, {why}: the server may have invented it")

    def _sealing_key(self, peer: Peer, sender: int, receiver: int) -> bytes:
        ends = sender.to_bytes(4, "big") + receiver.to_bytes(4, "big")
        return agreed(self._keys.cipher, peer.keys.cipher, b"fedaq shares" + ends + self._context)


def context_of(run_id: str, round_number: int) -> bytes:
    """Return what all keys and masks of a round are bound to."""
    return f"{run_id} {round_number}".encode()


def pair_use(context: bytes) -> bytes:
    """Return for what two clients agree on a seed: their mask of this round."""
    return b"fedaq mask" + context


def pair_sign(one: int, other: int) -> int:
    """Return with which sign a client has the mask that it shares with another."""
    return 1 if one < other else -1


def own_mask_seed(seed: bytes, context: bytes) -> bytes:
    """Return the seed of a client's own mask."""
    return derived(seed, b"fedaq own mask" + context)
