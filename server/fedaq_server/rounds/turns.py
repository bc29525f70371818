"""Whose statistics count in a round: those of a few clients, in turns, where all say much the same.

Clients measure the statistics of one model, so where their data are alike, so are these. Then two
clients say what all would. How far they are apart follows from each round's reports: the less
alike their data, the more of them report, up to all. A client whose turn it is not loses nothing,
for the next change is anew from what all hold.
"""

from collections.abc import Mapping, Sequence
from math import ceil, inf

import numpy as np

from fedaq.codec.quantizer import Floats, Spread
from fedaq.codec.statistics import UPLINK
from fedaq_server.schemes.code_lengths import tensors
from fedaq_server.schemes.spreads import stacked

# docs/research/statistics.md: what other values do.
# How far the mean of those who report may be from that of all, in deviations.
APART = 0.05
LEAST_REPORTS = 2


def reporters(weights: Mapping[str, int], number: int, apart: float) -> frozenset[str]:
    """Return the clients whose statistics count in a round.

    Parameters
    ----------
    weights : mapping of str to int
        Of all clients of the round, by name.
    number : int
        Of the round.
    apart : float
        As of `Conduct`.
    """
    names, clients = sorted(weights), len(weights)
    # The mean of m, drawn from n, is off by apart / m * (n - m) / (n - 1), in squares.
    bearable = (APART / UPLINK) ** 2 * (clients - 1) / apart if apart else inf
    enough = max(ceil(clients / (1 + bearable)), LEAST_REPORTS)
    if enough >= clients:
        return frozenset(names)
    # Those whose turn it is, until they have as much data as so many clients usually do.
    least, chosen = enough * sum(weights.values()) / clients, list[str]()
    for place in range(clients):
        if len(chosen) >= enough and sum(weights[name] for name in chosen) >= least:
            break
        chosen.append(names[(enough * number + place) % clients])
    return frozenset(chosen)


def square_apart(
    changes: Sequence[Spread], weights: Sequence[int], steps: Sequence[float], mean: Floats
) -> float | None:
    """Return the mean square of how far reported statistics are from their mean.

    Parameters
    ----------
    changes : sequence of Spread
        Of each client's statistics, in units, before they were coded.
    weights : sequence of int
    steps : sequence of float
        Quantization steps; 0 for raw values.
    mean : float32, shape (statistics,)
        Of the changes as they were decoded.

    Returns
    -------
    float or None
        None of fewer than two, or of no values.
    """
    if len(changes) < LEAST_REPORTS or not mean.size:
        return None
    shares = np.array(weights, np.float64) / sum(weights)
    known = tensors(stacked([(change,) for change in changes]), [mean.size], nearest=False)
    squares, step = known.rms[:, 0] ** 2, np.array(steps)
    # What rounding added to the mean, as independent noise does; nothing to raw values.
    errors = known.errors(np.where(step > 0, step, 1.0)[:, None])[:, 0]
    noise = np.where(step > 0, errors, 0.0) * squares
    of_mean = float(np.mean(np.square(mean, dtype=np.float64))) - float(shares**2 @ noise)
    # The mean of some is nearer to each of them than that of all.
    return max(float(shares @ squares) - of_mean, 0.0) / (1 - float(shares @ shares))
