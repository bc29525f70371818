"""Modules as people build them: some that cannot travel, each for a reason of its own, and some
that look odd and can."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fedaq.tasks import Task
from fedaq.tasks.digits import task as digits


class Layer(nn.Module):
    """A linear layer for digits with something beside it."""

    def __init__(self, **beside: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)
        for name, value in beside.items():
            if isinstance(value, nn.Parameter | nn.Module):
                setattr(self, name, value)
            else:
                self.register_buffer(name, value)

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.linear(inputs.to(self.linear.weight.dtype))
        return scores.float()


class WithState(Layer):
    """Has more in its state than its tensors."""

    def __init__(self, state: object) -> None:
        super().__init__()
        self.state = state

    def get_extra_state(self) -> Any:
        return self.state

    def set_extra_state(self, state: Any) -> None:
        self.state = state


class Hooked(Layer):
    """Gives out a copy of its weight under a name of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.register_state_dict_post_hook(self._add)  # type: ignore[no-untyped-call]

    @staticmethod
    def _add(module: Any, state: dict[str, Any], prefix: str, metadata: Any) -> None:
        state[f"{prefix}copy"] = module.linear.weight.detach().clone()


class Tied(Layer):
    """The second weight is made of the first one's memory."""

    def __init__(self, view: Callable[[Tensor], Tensor], *, buffer: bool = False) -> None:
        super().__init__()
        made = view(self.linear.weight.data)
        if buffer:
            self.register_buffer("second", made, persistent=False)
        else:
            self.second = nn.Parameter(made)

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = super().forward(inputs)
        if self.second.shape == self.linear.weight.shape:
            scores = scores + inputs @ self.second.T
        return scores


class Cut(Layer):
    """Weight and bias lie in one piece of memory, side by side or column beside column."""

    def __init__(self, *, in_columns: bool) -> None:
        super().__init__()
        memory = torch.randn(10, 65)
        if not in_columns:
            memory = memory.ravel()
            weight, bias = memory[:640].view(10, 64), memory[640:]
        else:
            weight, bias = memory[:, :64], memory[:, 64]
        self.linear.weight.data, self.linear.bias.data = weight, bias


def parameter(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value, requires_grad=value.is_floating_point() or value.is_complex())


def fake() -> nn.Module:
    with torch._subclasses.FakeTensorMode():
        return nn.Linear(64, 10)


def in_mode(**changes: Any) -> nn.Module:
    return Layer().to(**changes)


def nested() -> Tensor:
    return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)


def overlapping(memory: Tensor) -> nn.Module:
    return Layer(x=memory[:6], y=memory[3:])


def columns(memory: Tensor) -> nn.Module:
    views = (memory.as_strided((3, 1), (1, stride)) for stride in (1, 7))
    return Layer(**dict(zip("xy", map(nn.Parameter, views), strict=True)))


SHARED = "share memory but are not the same view of it, and would part from one another"
VIEW = "x is a view whose values share memory"
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "no module": (lambda: 3, "must return a torch.nn.Module, and returned int"),
    "nothing": (nn.ReLU, "no floating-point value to train"),
    "only integers": (
        lambda: nn.ParameterList([nn.Parameter(torch.ones(3).long(), requires_grad=False)]),
        "no floating-point value to train",
    ),
    "only empty tensors": (lambda: nn.Linear(0, 0), "no floating-point value to train"),
    "float8": (lambda: Layer(x=torch.ones(2).to(torch.float8_e4m3fn)), "x is torch.float8_e4m3fn"),
    "sparse": (lambda: Layer(x=parameter(torch.eye(3).to_sparse())), "tensor x is sparse_coo; "),
    "sparse rows": (lambda: Layer(x=torch.eye(3).to_sparse_csr()), "tensor x is sparse_csr; "),
    "mkldnn": (lambda: Layer(x=torch.eye(3).to_mkldnn()), "tensor x is mkldnn; "),
    "nested": (lambda: Layer(x=nested()), "tensor x is nested; every tensor must be dense"),
    "meta": (lambda: in_mode(device="meta"), "linear.weight is on device meta and has no"),
    "a meta buffer of integers": (
        lambda: Layer(x=torch.ones(2, dtype=torch.int64, device="meta")),
        "tensor x is on device meta and has no values",
    ),
    "lazy": (lambda: nn.LazyLinear(10), "tensor weight has no shape yet; give the lazy layer its"),
    "a lazy buffer": (
        lambda: Layer(x=nn.LazyBatchNorm1d(affine=False)),
        "tensor x.running_mean has no shape yet",
    ),
    "fake": (fake, "tensor weight is a FakeTensor without memory of its own"),
    "zeros without memory": (
        lambda: Layer(x=torch._efficientzerotensor(3)),
        "tensor x is a Tensor without memory of its own",
    ),
    "extra state": (
        lambda: WithState({"steps": 3}),
        "_extra_state of its state is a dict and no tensor",
    ),
    "a number as extra state": (lambda: WithState(3), "_extra_state of its state is a int and no"),
    "a tensor as extra state": (
        lambda: WithState(torch.ones(2)),
        "tensor _extra_state of its state is none of its parameters and buffers",
    ),
    "a hook": (Hooked, "tensor copy of its state is none of its parameters and buffers"),
    "expanded": (lambda: Layer(x=parameter(torch.ones(1).expand(3))), VIEW),
    "an expanded buffer": (lambda: Layer(x=torch.ones(3, 1).expand(3, 2)), VIEW),
    "windows": (lambda: Layer(x=torch.arange(5.0).unfold(0, 3, 1)), VIEW),
    "conjugate": (lambda: Layer(x=torch.ones(3, dtype=torch.complex64).conj().imag), VIEW),
    "tied to a part": (lambda: Tied(lambda weight: weight[2:5]), SHARED),
    "tied and turned": (lambda: Tied(lambda weight: weight.t()), SHARED),
    "tied and flat": (lambda: Tied(lambda weight: weight.view(-1)), SHARED),
    "tied to every other column": (lambda: Tied(lambda weight: weight[:, ::2]), SHARED),
    "tied as integers": (lambda: Tied(lambda w: w.view(torch.int32), buffer=True), SHARED),
    "a buffer that is a part": (lambda: Tied(lambda weight: weight[0], buffer=True), SHARED),
}

FINE: dict[str, Callable[[], nn.Module]] = {
    "complex": lambda: Layer(x=parameter(torch.arange(3.0) + 2j)),
    "complex double": lambda: Layer(x=parameter(torch.arange(3.0).double() + 2j)),
    "double": lambda: in_mode(dtype=torch.float64),
    "half": lambda: in_mode(dtype=torch.float16),
    "bfloat16": lambda: in_mode(dtype=torch.bfloat16),
    "a double buffer": lambda: Layer(x=torch.ones(2, dtype=torch.float64)),
    "frozen, in 8 bits": lambda: Layer(
        x=nn.Parameter(torch.ones(3).to(torch.float8_e4m3fn), requires_grad=False)
    ),
    "frozen integers": lambda: Layer(x=parameter(torch.arange(3))),
    "batch normalization": lambda: Layer(x=nn.BatchNorm1d(4)),
    "spectral normalization": lambda: Layer(
        x=nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))
    ),
    "many small tensors": lambda: Layer(x=nn.ModuleList(nn.Linear(2, 3) for _ in range(20))),
    "tied": lambda: Tied(lambda weight: weight),
    "tied to a buffer": lambda: Tied(lambda weight: weight, buffer=True),
    "side by side": lambda: Cut(in_columns=False),
    "column beside column": lambda: Cut(in_columns=True),
    "an empty tensor": lambda: Layer(x=parameter(torch.ones(0, 3)), y=torch.ones(0)),
    "a scalar": lambda: Layer(x=parameter(torch.tensor(2.0))),
    "integers": lambda: Layer(x=torch.arange(3), y=torch.tensor([True])),
    "integers that overlap": lambda: overlapping(torch.arange(9)),
    "tied, with another stride where it says nothing": lambda: columns(torch.arange(3.0)),
    "a complex buffer": lambda: Layer(x=torch.ones(3, dtype=torch.complex64)),
    "a sparse buffer of integers": lambda: Layer(x=torch.eye(3).long().to_sparse()),
    "quantized": lambda: Layer(x=torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8)),
    "turned": lambda: Layer(x=parameter(torch.arange(6.0).view(2, 3).t())),
    "with gaps": lambda: Layer(x=torch.arange(6.0)[::2]),
    "one of a dimension, expanded": lambda: Layer(x=torch.arange(3.0).expand(1, 3)),
    "parametrized": lambda: Layer(x=nn.utils.parametrizations.weight_norm(nn.Linear(2, 3))),
    "recurrent": lambda: Layer(x=nn.LSTM(2, 3)),
}


def task(name: str) -> Task:
    """Return digits with this model."""
    return replace(digits, model=FINE[name] if name in FINE else REFUSED[name][0])
