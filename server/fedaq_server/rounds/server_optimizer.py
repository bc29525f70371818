"""What the server makes of the mean update of a round: FedAvgM, FedAdam, FedYogi.

The mean is taken for a gradient, and the model is moved by a step of an optimizer (Hsu et al.,
arXiv 1909.06335; Reddi et al., arXiv 2003.00295, algorithm 2). As there, no moment is corrected
for having begun with zeros, and squares begin with ``tau**2``. Values that are not trained (a
running mean) get the mean update itself.

All works on slices of flat arrays, so memory is that of the moments, and of a block: FedAvgM keeps
one model more, the others two.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from torch import nn

from fedaq.codec.model import Kind, ModelSpec, TensorSpec
from fedaq.codec.quantizer import Floats
from fedaq.settings import ServerOptimizerSettings

# Values that are worked on at once.
BLOCK_VALUES = 2**18
_MOMENTS = {"none": (), "fedavgm": ("momentum",)}
_OF_OTHERS = ("momentum", "square")


@dataclass(frozen=True)
class ServerOptimizer:
    """An optimizer and what it remembers.

    Attributes
    ----------
    settings : ServerOptimizerSettings
        Of a kind other than none.
    spec : ModelSpec
        Of what it remembers: one flat tensor for each moment.
    flat : float32, shape (moments * parameters,)
        All of them.
    trained : sequence of (slice, bool)
        Parts of the flat model in their order, and whether they are trained.
    """

    settings: ServerOptimizerSettings
    spec: ModelSpec
    flat: Floats
    trained: Sequence[tuple[slice, bool]]

    @classmethod
    def begun(
        cls, settings: ServerOptimizerSettings, spec: ModelSpec, module: nn.Module
    ) -> "ServerOptimizer | None":
        """Return one for a model, None if the settings ask for none."""
        names = _MOMENTS.get(settings.kind, _OF_OTHERS)
        if not names:
            return None
        own = ModelSpec(tuple(TensorSpec(name, (spec.parameters,)) for name in names))
        flat = np.zeros(own.parameters, np.float32)
        flat[spec.parameters :] = settings.tau**2
        return cls(settings, own, flat, _trained(spec, module))

    @property
    def learning_rate(self) -> float:
        """That of the settings, or the default of the kind."""
        default = 1.0 if self.settings.kind == "fedavgm" else 0.01
        return default if self.settings.learning_rate is None else self.settings.learning_rate

    def blocks(self, part: slice) -> Iterator[tuple[slice, bool]]:
        """Yield the blocks of a part of the flat model, and whether each is trained."""
        for whole, is_trained in self.trained:
            last = min(part.stop, whole.stop)
            for start in range(max(part.start, whole.start), last, BLOCK_VALUES):
                yield slice(start, min(start + BLOCK_VALUES, last)), is_trained

    def step(self, update: Floats, block: slice) -> Floats:
        """Remember the mean update at a block of the flat model; return the step to take there.

        Parameters
        ----------
        update : float32
        block : slice
        """
        own, rate = self.settings, np.float32(self.learning_rate)
        moments = [moment[block] for moment in self.spec.split(self.flat)]
        momentum = moments[0]
        momentum *= np.float32(own.momentum)
        if own.kind == "fedavgm":
            momentum += update
            return rate * momentum
        momentum += np.float32(1 - own.momentum) * update
        _remember_squares(moments[1], np.square(update), own)
        steps = rate * momentum / (np.sqrt(moments[1]) + np.float32(own.tau))
        return np.asarray(steps, np.float32)


def _remember_squares(kept: Floats, now: Floats, own: ServerOptimizerSettings) -> None:
    share = np.float32(1 - own.beta2)
    if own.kind == "fedadam":
        kept *= np.float32(own.beta2)
        kept += share * now
    else:
        kept -= share * now * np.sign(kept - now)


def _trained(spec: ModelSpec, module: nn.Module) -> list[tuple[slice, bool]]:
    """Return the parts of the flat model that are trained, and those between them."""
    names = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    parts = []
    for is_trained, group in groupby(
        spec.named, lambda pair: pair[0].kind == Kind.CODED and pair[0].name in names
    ):
        places = [place for _, place in group]
        parts.append((slice(places[0].start, places[-1].stop), is_trained))
    return parts
