"""What a client keeps from its server."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedaq.errors import UserError
from fedaq.net.credentials import Certificates
from fedaq.settings import Settings

if TYPE_CHECKING:
    from fedaq.privacy.member import Member


@dataclass(frozen=True)
class Privacy:
    """What a client keeps from its server.

    Attributes
    ----------
    required : bool
        Whether it takes part in no round in which its update would be seen.
    certificates : Certificates, optional
        By which its keys, and those of others, are proved.
    clipped : bool
        Whether it takes part in no round in which its update is not clipped, for noise to hide it.
    """

    required: bool = False
    certificates: Certificates | None = None
    clipped: bool = False

    def check(self, *, masked: bool, clipped: bool) -> None:
        """Refuse a round of updates that are seen, or not clipped, where this client's may not be.

        Raises
        ------
        UserError
            If it is one.
        """
        if self.required and not masked:
            raise UserError(
                "privacy.secure_aggregation: this client keeps its updates from the server, which "
                "wants to see them; set it there too, or leave it out here"
            )
        if self.clipped and not clipped:
            raise UserError(
                "privacy.epsilon: this client takes part where noise hides it, which is not so "
                "here; set it on the server too, or leave it out here"
            )

    def member(self, name: str, run_id: str, round_number: int) -> "Member":
        """Return this client in the masking of a round."""
        from fedaq.privacy.keys import authority_of, signer_of
        from fedaq.privacy.member import Member, context_of

        own, context = self.certificates, context_of(run_id, round_number)
        if own is None or not own.certificate:
            return Member(name, context)
        return Member(name, context, signer_of(own), authority_of(own))


SEEN = Privacy()


def privacy_of(settings: Settings, certificates: Certificates | None = None) -> Privacy:
    """Return what a client with these settings keeps from its server."""
    return Privacy(settings.privacy.secure_aggregation, certificates, settings.is_private)


def can_mask() -> bool:
    """Tell whether the package is there that masks need."""
    try:
        import cryptography  # noqa: F401  only whether it is there
    except ImportError:
        return False
    return True
