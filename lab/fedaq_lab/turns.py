"""How many clients of one process are in the midst of something at a time."""

from fedaq.settings import Settings


def learners_needed(settings: Settings, at_most: int) -> int:
    """Return how many learners the clients of a run take turns with.

    Masked updates are exchanged by all clients of a round at once.
    """
    of_round = settings.taking_part
    return of_round if settings.privacy.secure_aggregation else min(of_round, at_most)
