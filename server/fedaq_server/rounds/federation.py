"""What all rounds of a run share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedaq.codec.model import ModelSpec
from fedaq.codec.quantizer import Floats, Spread
from fedaq.settings import Settings
from fedaq.tasks import Evaluation, Metric
from fedaq_server.accounts import Accounts
from fedaq_server.conduct import Conduct
from fedaq_server.metrics import Metrics
from fedaq_server.privacy.account import PrivacyAccount
from fedaq_server.records.ledger import Committed, Ledger
from fedaq_server.records.record import RoundRecord
from fedaq_server.rounds.differences import History
from fedaq_server.rounds.rules import Rule
from fedaq_server.rounds.server_optimizer import ServerOptimizer
from fedaq_server.schemes.scheme import Plan, Scheme
from fedaq_server.transport.roster import Roster

if TYPE_CHECKING:
    from fedaq.privacy.keys import Authority


@dataclass(frozen=True)
class Federation:
    """What all rounds of a run share.

    Attributes
    ----------
    model : float32, shape (parameters,)
        ``w_k``, the global model.
    total : int64, shape (parameters,)
        Memory for the sum of updates. Where they are added to the broadcast model, the exact one
        need not last once that is coded: then `model` is the first half of this memory.
    rule : Rule, optional
        How updates become one; None: their weighted mean.
    optimizer : ServerOptimizer, optional
        What makes a step of the mean update; None where that is the step.
    history : History, optional
        What clients hold, if they are sent differences.
    first_ranges : tuple of Spread
        Of the weights with which the run begins.
    metric : Metric
        The task's.
    measured : bool
        Whether clients measure the statistics of the model that they hold, so that this one is
        tested.
    evaluate : callable
        Tests the model after a round of this number, or returns None where none is tested; called
        between rounds, off the event loop.
    ledger : Ledger
        What the next round depends on, and the folder of the run.
    commit : callable
        Commits a round to the ledger, before the next begins; called off the event loop.
    on_round : callable
        Told of every committed round, and of the plan with which it began.
    is_last : callable
        Tells, off the event loop, whether the run is to end after this round, before it would.
    authority : callable
        Returns by whom clients' keys for masks must be proved; None where nobody could.
    privacy : PrivacyAccount, optional
        What may be told of each client; None where the model is not private.
    share : float
        Of all clients of the run that these are, by their weights: below 1 behind a relay.
    """

    settings: Settings
    spec: ModelSpec
    model: Floats
    total: NDArray[np.int64]
    rule: Rule | None
    optimizer: ServerOptimizer | None
    history: History | None
    first_ranges: tuple[Spread, ...]
    scheme: Scheme
    roster: Roster
    conduct: Conduct
    accounts: Accounts
    metric: Metric
    measured: bool
    evaluate: Callable[[int], Evaluation | None]
    ledger: Ledger
    commit: Callable[[Committed], None]
    on_round: Callable[[Committed, Plan], None]
    is_last: Callable[[RoundRecord], bool]
    metrics: Metrics
    authority: "Callable[[], Authority | None]" = lambda: None
    privacy: PrivacyAccount | None = None
    share: float = 1.0

    def tests_held(self, number: int) -> bool:
        """Tell whether a round's test is of the model that clients held, and not of its successor.

        The first they hold is not trained.
        """
        return self.measured and number > 1
