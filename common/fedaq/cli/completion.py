"""What the shell offers for a word that is begun (``fedaq --install-completion``)."""

from collections.abc import Iterator

# Named here, too, because their modules take seconds to import.
TASKS = (
    "digits", "fashion-mnist", "fashion-mnist-cnn", "images", "cifar", "cifar-group", "regression",
    "text",
)  # fmt: skip
SCHEMES = ("fp32", "fixed", "adaquantfl", "dadaquant", "feddq", "stc", "topk", "fedaq")
AGGREGATIONS = ("mean", "median", "trimmed_mean")


def task(incomplete: str) -> list[str]:
    """Offer the built-in tasks."""
    return [name for name in TASKS if name.startswith(incomplete)]


def scheme(incomplete: str) -> list[str]:
    """Offer the built-in schemes."""
    return [name for name in SCHEMES if name.startswith(incomplete)]


def aggregation(incomplete: str) -> list[str]:
    """Offer the ways in which updates become one."""
    return [name for name in AGGREGATIONS if name.startswith(incomplete)]


def radio(incomplete: str) -> list[str]:
    """Offer the presets of radios."""
    from fedaq.energy.radios import PRESETS

    return [name for name in PRESETS if name.startswith(incomplete)]


def assignment(incomplete: str) -> Iterator[tuple[str, str]]:
    """Offer the names of settings, for ``--set``."""
    from fedaq.cli.settings_table import all_settings

    for setting in all_settings():
        if setting.name.startswith(incomplete):
            yield f"{setting.name}=", setting.meaning
