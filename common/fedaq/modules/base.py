"""What never travels, from a model file: the base that adapters are trained on."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from fedaq.errors import UserError
from fedaq.modules.places import identity
from fedaq.modules.policies import Policy, policies_of


def load_base(
    module: nn.Module, path: Path, patterns: Mapping[str, str], renamed: Mapping[str, str]
) -> None:
    """Read what a file has of a module's frozen and local tensors into the module.

    What travels is left as it is: the server alone begins with it. Nothing happens where the file
    has nothing else, as the model of a run.

    Parameters
    ----------
    module : nn.Module
    path : Path
        A safetensors file; both sides have the same.
    patterns, renamed : mapping of str to str
        As the task states them.

    Raises
    ------
    UserError
        If it cannot be read, lacks a frozen tensor while it has another, or has one of another
        type or shape.
    """
    from safetensors import SafetensorError, safe_open

    state = module.state_dict(keep_vars=True)
    policies = policies_of(state, patterns)
    unsent = (Policy.FROZEN, Policy.LOCAL)
    sent = {identity(value) for name, value in state.items() if policies[name] not in unsent}
    kept = {name: value for name, value in state.items() if identity(value) not in sent}
    try:
        with safe_open(path, framework="pt") as file:
            names = {renamed.get(name, name): name for name in file.keys()}  # noqa: SIM118
            if kept.keys().isdisjoint(names):
                return
            lacking = [n for n in kept if policies[n] is Policy.FROZEN and n not in names]
            if lacking:
                raise UserError(
                    f"{path}: has some of the tensors that the task's model keeps frozen, and not "
                    f"{lacking[0]}; it must have all, or none"
                )
            with torch.no_grad():
                for name in kept.keys() & names.keys():
                    values, mine = file.get_tensor(names[name]), kept[name]
                    if values.shape != mine.shape or values.dtype != mine.dtype:
                        raise UserError(
                            f"{path}: {name} is {values.dtype} {tuple(values.shape)}; the task's "
                            f"model has {mine.dtype} {tuple(mine.shape)}"
                        )
                    mine.copy_(values)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not a model that can be read: {error}") from None
