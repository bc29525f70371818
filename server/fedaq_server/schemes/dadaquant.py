"""DAdaQuant (arXiv 2111.00465): levels adapted to time and to the weights of the clients.

The quantization level ``q`` doubles whenever the running training loss stalls (section
3.4); the clients of a round share its error by their weights (section 3.5, theorem 1).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt

from fedaq.codec.quantizer import Range
from fedaq.settings import DadaquantSettings, Settings
from fedaq_server.schemes.adaquantfl import bits_for_levels
from fedaq_server.schemes.scheme import ClientState, Grant, Outcome, Plan, RoundState


def client_levels(weights: Mapping[str, float], q: int) -> dict[str, int]:
    """Return every client's level: the fewest in sum for the error of `q` for all.

    ``q_i = max(1, round(sqrt(a / b) w_i**(2/3)))`` with ``a = sum_j w_j**(2/3)`` and
    ``b = sum_j w_j**2 / q**2`` (arXiv 2111.00465, theorem 1).

    Parameters
    ----------
    weights : mapping of str to float
        ``w_i > 0`` by client.
    q : int
        The level that time-adaptation chose.
    """
    shares = {name: weight ** (2 / 3) for name, weight in weights.items()}
    a = sum(shares.values())
    b = sum(weight**2 for weight in weights.values()) / q**2
    return {name: max(1, round(sqrt(a / b) * share)) for name, share in shares.items()}


@dataclass
class Dadaquant:
    """Levels from the running loss and from the weights.

    Attributes
    ----------
    phi : int
        Rounds across which running losses are compared, and for which a level is kept.
    q : int
        The level ``q_t``.
    losses : list of float
        Running losses of the latest rounds, at most `phi`.
    rounds_at_q : int
        Finished rounds since `q` changed.
    """

    settings: DadaquantSettings
    phi: int
    q: int
    losses: list[float] = field(default_factory=list)
    rounds_at_q: int = 0

    def plan(self, state: RoundState) -> Plan:
        """Give each client the bits of its level, the same for every tensor."""
        tensors = len(state.spec.tensors)
        weights = {name: client.weight for name, client in state.clients.items()}
        uplink = {
            name: (bits_for_levels(levels),) * tensors
            for name, levels in client_levels(weights, self.q).items()
        }
        return Plan(Grant((self.settings.downlink_bits,) * tensors), uplink)

    def grant(
        self, state: RoundState, plan: Plan, client: ClientState, ranges: tuple[Range, ...]
    ) -> Grant:
        """Grant what was planned."""
        return Grant(plan.uplink_bits[client.name])

    def learn(self, outcome: Outcome) -> None:
        """Update the running loss, unless nobody reported one, and double `q` if it stalls."""
        if not outcome.update_ranges:
            return
        psi = self.settings.psi
        before = self.losses[-1] if self.losses else outcome.train_loss
        running = psi * before + (1 - psi) * outcome.train_loss
        self.losses = [*self.losses, running][-self.phi :]
        self.rounds_at_q += 1
        # From here on losses[0] is the running loss of phi - 1 rounds ago.
        if self.rounds_at_q >= self.phi and running >= self.losses[0]:
            self._double()

    def _double(self) -> None:
        if self.q < self.settings.q_max:
            self.q = min(2 * self.q, self.settings.q_max)
            self.rounds_at_q = 0


def dadaquant(settings: Settings) -> Dadaquant:
    """Return the scheme ``dadaquant``; `phi` is a tenth of the run unless it is set.

    At least 2: across one round the rule would compare a loss with itself.
    """
    own = settings.dadaquant
    return Dadaquant(own, own.phi or max(2, settings.rounds // 10), own.q_min)
