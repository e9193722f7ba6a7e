"""Let an optimizer's state be where its parameters are: momentum survives the way from worker to worker."""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import Tensor
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from fedlightning.pointers.location import Location
from fedlightning.pointers.sending import send_tensor
from fedlightning.pointers.tensor import PointerTensor

_READ_HERE = frozenset({"step", "eta", "mu", "mu_product"})


@cache
def follow_parameters() -> None:
    """From now on, move the state of every optimizer to its parameters before each step."""
    register_optimizer_step_pre_hook(bring_state_along)


def bring_state_along(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    """Move an optimizer's state to its parameters; a hook, with nothing to do where all of it is here."""
    for parameter, state in optimizer.state.items():
        place = _place(parameter)
        for name, value in state.items():
            if isinstance(value, Tensor) and _place(value) is not place and _follows(name, value, parameter):
                state[name] = _bring(value, place)


def _follows(name: str, value: Tensor, parameter: Tensor) -> bool:
    """Tell state that is computed with at the worker from counts and rates, which are read here."""
    return name not in _READ_HERE and (value.dim() > 0 or parameter.dim() == 0)


def _place(tensor: Tensor) -> Location | None:
    return tensor.location if isinstance(tensor, PointerTensor) else None


def _bring(tensor: Tensor, place: Location | None) -> Tensor:
    local = tensor.get() if isinstance(tensor, PointerTensor) else tensor
    return local if place is None else send_tensor(local, place)
