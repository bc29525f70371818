"""What becomes of each tensor of a module: found from the module, or named by the task."""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from fnmatch import fnmatchcase

from torch import Tensor, nn

from fedaq.errors import UserError

# A buffer of more values is no statistic of a layer; an EMA copy of the weights is coded like them.
LARGEST_STATISTIC = 4096


class Policy(StrEnum):
    """What becomes of a tensor.

    Attributes
    ----------
    CODED
        Averaged, as coarsely coded as the scheme says: weights.
    FINE
        Averaged, coded in a unit that follows its values: statistics.
    LOCAL
        Each side keeps its own.
    SERVER
        What the server has goes down; what clients make of it does not come up.
    FROZEN
        Never sent, for both sides have it; a digest proves that.
    """

    CODED = "coded"
    FINE = "fine"
    LOCAL = "local"
    SERVER = "server"
    FROZEN = "frozen"


def policies_of(state: Mapping[str, Tensor], patterns: Mapping[str, str]) -> dict[str, Policy]:
    """Return the policy of every tensor of a module's state, by name.

    Parameters
    ----------
    state : mapping of str to Tensor
        With parameters as they are in the module (``state_dict(keep_vars=True)``).
    patterns : mapping of str to str
        Patterns of names, as `fnmatch` has them, to policies; of those that fit, the last counts.

    Raises
    ------
    UserError
        If a pattern fits no tensor, or names no policy.
    """
    chosen = {name: _default(value) for name, value in state.items()}
    for pattern, wanted in patterns.items():
        try:
            policy = Policy(wanted)
        except ValueError:
            known = ", ".join(Policy)
            raise UserError(
                f"model: tensors of the task: {wanted!r} for {pattern!r} is none of {known}"
            ) from None
        names = [name for name in state if fnmatchcase(name, pattern)]
        if not names:
            some = ", ".join([*state][:3])
            raise UserError(
                f"model: tensors of the task: {pattern!r} fits no tensor of the model; it has "
                f"{some} and so on"
            )
        chosen |= dict.fromkeys(names, policy)
    return chosen


def has_statistics(layer: nn.Module) -> bool:
    """Tell whether a layer keeps a running mean and variance, whatever its class.

    Batch and instance normalization have no public base.
    """
    own = (getattr(layer, name, None) for name in ("running_mean", "running_var"))
    return all(isinstance(value, Tensor) for value in own)


def variances_of(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the names of the running mean and variance of every normalization layer."""
    for name, part in module.named_modules():
        if has_statistics(part) and part.running_mean.shape == part.running_var.shape:
            prefix = f"{name}." if name else ""
            yield f"{prefix}running_mean", f"{prefix}running_var"


def _default(value: Tensor) -> Policy:
    if isinstance(value, nn.Parameter):
        return Policy.CODED if value.requires_grad else Policy.FROZEN
    if not value.is_floating_point():
        return Policy.LOCAL
    return Policy.FINE if value.numel() <= LARGEST_STATISTIC else Policy.CODED
