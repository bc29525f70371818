"""What the mistakes of whoever looks for a planted client say of epsilon."""

from math import log

import numpy as np
from numpy.typing import NDArray
from scipy import stats


def least_epsilon(
    false: NDArray[np.bool_], true: NDArray[np.bool_], delta: float, chance: float
) -> float:
    """Return a lower bound on epsilon, which is none with about this chance.

    Clopper and Pearson: the most that false alarms may be, and the least that true ones are.

    Parameters
    ----------
    false, true : bool arrays
        Where there was an alarm, without the planted client and with it.
    delta, chance : float
    """
    most = stats.beta.ppf(1 - chance, false.sum() + 1, (~false).sum()) if not false.all() else 1.0
    least = stats.beta.ppf(chance, true.sum(), (~true).sum() + 1) if true.any() else 0.0
    return log(max(least - delta, 1e-12) / most)
