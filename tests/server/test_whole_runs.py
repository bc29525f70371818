"""Budgets: what a whole run leaves, and how coarse what goes down to many may be."""

import pytest

from fedaq_server.schemes.coded import DROWNED, UNSPENT
from fedaq_server.schemes.expected import Longer, downlink_step, expected
from server.simulation import RADIO, Simulation, run, spent_j, spreads


def test_what_a_whole_run_leaves_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Transfers of half the expected length leave much, of the last round too."""
    simulation = Simulation(lengths=lambda random, usual, most: usual // 2)
    budget_j = 4 * simulation.bit_j()
    done = run(simulation, budget_j)
    assert len(done) == simulation.rounds
    left_j = budget_j - spent_j(done)
    assert left_j > UNSPENT * budget_j
    assert f"{left_j:.3g} J are left after all {simulation.rounds} rounds" in caplog.text


def test_what_goes_down_to_a_crowd_is_no_coarser_than_to_ten() -> None:
    """Steps up grow with the clients, whose noise averages out; a difference is rounded once."""
    steps = []
    for clients in (10, 40, 160):
        many = Simulation(shares=(1 / clients,) * clients, radios=(RADIO,) * clients)
        seen = dict.fromkeys(many.state(1, {}).clients, spreads(many.update(1, 0)))
        now = expected(many.state(2, seen), Longer(dict.fromkeys(seen, 1.0), 1.0), DROWNED)
        steps.append(downlink_step(now.state, now.dearest))
    assert max(steps[1:]) <= 1.01 * steps[0]
    # Nor is it much finer.
    assert min(steps[1:]) >= 0.4 * steps[0]
