"""Which small tensors a grant leaves out."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedaq_server.schemes.spreads import arrays
from fedaq_server.schemes.step_grants import Updates, downlink_grant, updates, uplink_grant
from server.simulation import SPEC, Simulation, spreads


def sent(scale: float) -> Updates:
    simulation = Simulation()
    state = simulation.state(2, {})
    flat = simulation.update(2, 0)
    flat[SPEC.slices[1]] *= np.float32(scale)
    return updates(arrays(spreads(flat)), state, state.clients["client-0"].weight)


def test_a_small_tensor_is_skipped_where_it_is_not_worth_its_bits() -> None:
    for scale, skipped in ((1e-3, True), (10.0, False)):
        grant = uplink_grant(sent(scale), 0.05)
        assert [bits == 0 for bits in grant.bits] == [False, skipped, False]
        assert [step == 0 for step in grant.steps] == [False, skipped, False]


@given(st.floats(-4, 2), st.floats(-4, 2))
def test_a_large_tensor_is_never_skipped_and_more_of_a_small_one_is_no_reason_to_skip_it(
    decades: float, step_decades: float
) -> None:
    step = 0.05 * 10**step_decades
    little, much = (
        uplink_grant(sent(scale), step).bits for scale in (10**decades, 3 * 10**decades)
    )
    for bits in (little, much):
        large = [b for b, d in zip(bits, SPEC.elements, strict=True) if d > 1000]
        assert all(large)
    assert not (little[1] and not much[1])


def test_a_difference_that_would_be_rounded_to_zero_is_not_sent() -> None:
    simulation = Simulation()
    state = simulation.state(2, {})
    reach = max(abs(simulation.going_down(2)[SPEC.slices[1]]))
    for step, sent in ((1.9 * float(reach), True), (2.1 * float(reach), False)):
        assert bool(downlink_grant(state, step).bits[1]) == sent
        # A whole model is rounded at random, so never surely to zero.
        assert downlink_grant(replace(state, differences=False), step).bits[1] > 0
