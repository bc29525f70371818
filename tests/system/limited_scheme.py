"""One step and one limit for every update, where entropy coding is on."""

from dataclasses import dataclass, replace
from math import inf

from fedaq.codec.quantizer import Spread
from fedaq.settings import Settings
from fedaq_server.schemes import ClientState, Grant, Plan, RoundState
from fedaq_server.schemes.several import CodedBudgets

LIMIT_BYTES = 2500
STEP = 0.04


@dataclass
class Limited(CodedBudgets):
    """Steps far too fine for the limit."""

    def grant(
        self, state: RoundState, plan: Plan, client: ClientState, ranges: tuple[Spread, ...]
    ) -> Grant:
        """Grant the step, and the limit."""
        return replace(super().grant(state, plan, client, ranges), limit_bytes=LIMIT_BYTES)


def limited(settings: Settings) -> Limited:
    """Return the scheme."""
    return Limited(inf, uplink=STEP, downlink=STEP)
