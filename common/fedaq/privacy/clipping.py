"""How far one client's update can move the sum: its norm, before and after it is rounded.

An update is shortened to a norm, and then rounded at random to whole steps, which can lengthen it.
A vector of ``d`` values whose norm is ``c`` steps has, when it is rounded, a mean square norm of
at most ``c**2 + d / 4``, and is with high probability not much longer than that (Kairouz et al.,
arXiv 2102.06387, theorem 1). One that is longer all the same is shortened, and rounded
again: so the bound holds always, and not only with high probability.
"""

from math import log, sqrt

# In a count of the updates that were short enough, each client adds or takes off so much.
COUNT_UNIT = 512
# Of a rounded update to be longer than the bound, so that it must be shortened: the most.
CHANCE = 2.0**-10
# By what it is shortened then.
SHORTER = 0.99


def rounded_norm(norm: float, values: int) -> float:
    """Return the largest norm that a rounded update may have.

    Parameters
    ----------
    norm : float
        Of the update, in steps.
    values : int

    Returns
    -------
    float
        In steps.
    """
    side = sqrt(values)
    likely = norm**2 + values / 4 + sqrt(2 * log(1 / CHANCE)) * (norm + side / 2)
    return min(norm + side, sqrt(likely))
