"""What makes a round's sum private where clients do not, and what it tells the account."""

import asyncio
from math import ldexp

from fedaq.privacy import noise
from fedaq.privacy.clipping import COUNT_UNIT
from fedaq_server.privacy.account import PrivacyAccount
from fedaq_server.privacy.release import Release
from fedaq_server.rounds.aggregation import Aggregate
from fedaq_server.rounds.federation import Federation
from fedaq_server.rounds.reports import Report
from fedaq_server.rounds.round import Round


async def charge(federation: Federation) -> None:
    """Charge for a sum, on disk, before it is there: whoever stops the server cannot undo that."""
    account = federation.privacy
    assert account is not None
    account.releases += 1
    await asyncio.to_thread(federation.ledger.charge, account)


async def make_private(current: Round) -> None:
    """Add noise to the sum of updates that were seen."""
    release = current.state.release
    if release is None or current.masking is not None:
        return
    await charge(current.federation)
    await current.on_worker(add_noise, current, release)


def add_noise(current: Round, release: Release) -> None:
    """Add noise to every value of the sum."""
    aggregate = current.aggregate
    assert isinstance(aggregate, Aggregate)
    unit = int(ldexp(release.step, aggregate.exponent))
    for code, part in zip(current.plan.grid, current.state.spec.slices, strict=True):
        for first in range(part.start, part.stop if code.bits else part.start, noise.BLOCK):
            block = aggregate.total[first : min(first + noise.BLOCK, part.stop)]
            block += unit * noise.discrete_gaussian(release.deviation, block.size)


def adapt(account: PrivacyAccount, current: Round, reports: list[Report]) -> None:
    """Let the clip follow how many updates were short enough, of which only a noisy count is known.

    `reports` are those whose updates are in the sum; there are some.
    """
    release = current.state.release
    if release is None or not release.adapts:
        return
    if current.masking is not None:
        count = current.masking.count
    else:
        exact = sum(COUNT_UNIT if report.within_clip else -COUNT_UNIT for report in reports)
        count = exact + int(noise.discrete_gaussian(release.count_deviation, 1)[0])
    account.adapt(release.within(count, len(reports)))
