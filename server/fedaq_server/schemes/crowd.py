"""What is left of many updates in their mean, and what noise that bears.

How much noise training bears was found with ten clients, beside the mean square of one update: for
up to so many, that of their mean is not far from it. Of what differs between clients, less is left
where they are many.
"""

import numpy as np

from fedaq_server.schemes.spreads import Array
from fedaq_server.schemes.step_grants import Updates

# Where `crowd_of` is 1.
CLIENTS = 10.0


def crowd_of(sent: Updates, steps: Array, mean_power: float) -> float:
    """Return the mean square of a round's mean update, over what it would be with `CLIENTS`.

    Of what clients agree on, all is in the mean; of what differs, one part in as many as they are.

    Parameters
    ----------
    sent : Updates
        Of shape (senders, tensors).
    steps : float64, shape (senders,)
        Of the updates, whose noise is in their mean.
    mean_power : float
        Sum of the squares of the mean update, as it was decoded.

    Returns
    -------
    float
        1 with at most `CLIENTS`, else at most 1.
    """
    shares = sent.weights[:, 0] / np.sum(sent.weights)
    clients = 1 / float(np.sum(shares**2))
    if clients <= CLIENTS:
        return 1.0
    each = float(np.sum(shares * np.sum(sent.power, axis=-1)))
    noise = np.sum(sent.power * sent.sent.errors(steps[:, None]), axis=-1)
    mean = mean_power - float(np.sum(shares**2 * noise))
    agreed = min(max((clients * mean - each) / (clients - 1), 0.0), each)

    def power(clients: float) -> float:
        return agreed + (each - agreed) / clients

    return float(power(clients) / power(CLIENTS))


def noise_down(squared_weights: float) -> float:
    """Return how many times the step of updates that of what goes down may be.

    Steps up grow with the clients, whose noise averages out. What goes down is rounded once for
    all: its step is as fine as with `CLIENTS`.
    """
    return float((squared_weights * min(1.0, CLIENTS * squared_weights)) ** 0.5)
