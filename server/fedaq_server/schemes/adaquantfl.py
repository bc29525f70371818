"""AdaQuantFL (arXiv 2102.04487): more quantization levels as the training loss falls.

Every client and tensor gets ``s_k = ceil(s_0 sqrt(F_0 / F_k))`` levels. docs/reference/schemes.md
says which loss stands for ``F_k`` and how levels become bits.
"""

from dataclasses import dataclass
from math import ceil, inf, sqrt

from fedaq.codec.quantizer import MAX_BITS, Range
from fedaq.errors import UserError
from fedaq.settings import AdaquantflSettings, Settings
from fedaq_server.schemes.scheme import ClientState, Grant, Outcome, Plan, RoundState

# The most levels that fit the widest code.
MAX_LEVELS = (1 << MAX_BITS) - 1


def bits_for_levels(levels: int) -> int:
    """Return ``ceil(log2(s + 1))``, the fewest bits whose code has `levels` steps.

    In QSGD (arXiv 1610.02132), which the papers use, these bits hold the magnitude and
    one more the sign; here the range of the tensor covers both signs (docs/reference/schemes.md).

    Parameters
    ----------
    levels : int
        ``s >= 1``; more than the widest code holds get the widest code.
    """
    return min(levels.bit_length(), MAX_BITS)


@dataclass
class Adaquantfl:
    """Levels from the training loss.

    Attributes
    ----------
    first_loss, last_loss : float, optional
        ``F_0`` and ``F_k``, None before the first round has ended.
    """

    settings: AdaquantflSettings
    first_loss: float | None = None
    last_loss: float | None = None

    def levels(self) -> int:
        """Return ``s_k = ceil(s_0 sqrt(F_0 / F_k))``, at most what a code can hold."""
        if self.first_loss is None or self.last_loss is None:
            return self.settings.s0
        ratio = self.first_loss / self.last_loss if self.last_loss > 0 else inf
        return ceil(min(MAX_LEVELS, self.settings.s0 * sqrt(ratio)))

    def plan(self, state: RoundState) -> Plan:
        """Give every client and tensor the bits of ``s_k`` levels."""
        tensors = len(state.spec.tensors)
        uplink = (bits_for_levels(self.levels()),) * tensors
        downlink = (self.settings.downlink_bits,) * tensors
        return Plan(Grant(downlink), dict.fromkeys(state.clients, uplink))

    def grant(
        self, state: RoundState, plan: Plan, client: ClientState, ranges: tuple[Range, ...]
    ) -> Grant:
        """Grant what was planned."""
        return Grant(plan.uplink_bits[client.name])

    def learn(self, outcome: Outcome) -> None:
        """Take note of the training loss, unless nobody reported one.

        Raises
        ------
        UserError
            If the first loss is not positive: the rule compares all others with it.
        """
        if not outcome.update_ranges:
            return
        if self.first_loss is None:
            if outcome.train_loss <= 0:
                raise UserError(
                    f"scheme adaquantfl: round {outcome.round} has the training loss "
                    f"{outcome.train_loss:g}; the rule needs losses above 0"
                )
            self.first_loss = outcome.train_loss
        self.last_loss = outcome.train_loss


def adaquantfl(settings: Settings) -> Adaquantfl:
    """Return the scheme ``adaquantfl`` with ``s_0`` of the settings."""
    return Adaquantfl(settings.adaquantfl)
