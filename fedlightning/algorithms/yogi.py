"""Yogi, the one server optimizer of the adaptive family that torch does not have.

Reddi et al. 2021, "Adaptive Federated Optimization", Algorithm 2; first in Zaheer et al. 2018. How a server
optimizer is used lives in ``server``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

from fedlightning.algorithms.numbers import require_at_least


class Yogi(Optimizer):
    """Step by ``lr * m / (sqrt(v) + tau)``, where ``v`` moves by the sign of its error.

    With gradient ``g``: ``m <- beta1 * m + (1 - beta1) * g``, then
    ``v <- v - (1 - beta2) * g^2 * sign(v - g^2)``. Unlike Adam's, ``v`` changes by no more than
    ``(1 - beta2) * g^2`` however large it is, and neither moment is corrected for its start: ``m`` begins at
    zero and ``v`` at ``initial``, as in the paper.

    Args:
        params: Parameters, or groups of them, as for every optimizer of torch's.
        lr: The server's learning rate, at least 0; ``eta`` in the paper.
        betas: How much of ``m`` and of ``v`` is kept, both at least 0 and less than 1.
        tau: Degree of adaptivity, more than 0: the smaller, the more.
        initial: What ``v`` begins with, at least 0; ``None`` for ``tau ** 2``, the paper's least.

    Raises:
        ValueError: A setting is out of range.

    Example:
        >>> from functools import partial
        >>> fed_yogi = partial(Yogi, lr=0.01, tau=1e-3)
        >>> parameter = torch.nn.Parameter(torch.tensor([1.0]))
        >>> parameter.grad = torch.tensor([2.0])
        >>> fed_yogi([parameter]).step()
        >>> round(parameter.item(), 4)
        0.99
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.99),
        tau: float = 1e-3,
        initial: float | None = None,
    ) -> None:
        require_at_least("lr", lr, 0)
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be two numbers of at least 0 and less than 1, got {betas!r}.")
        require_at_least("tau", tau, 0)
        if tau == 0:
            raise ValueError("tau must be more than 0, got 0: it keeps the step finite where v is 0.")
        initial = tau**2 if initial is None else initial
        require_at_least("initial", initial, 0)
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "tau": tau, "initial": initial})

    @override
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step.

        Args:
            closure: Evaluates the loss anew, with gradients; none is needed.

        Returns:
            What the closure returned, if there is one.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    _step(parameter, parameter.grad, self.state[parameter], group)
        return loss


def _step(parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
    if not state:
        state["m"] = torch.zeros_like(parameter)
        state["v"] = torch.full_like(parameter, group["initial"])
    m, v, square = state["m"], state["v"], gradient.square()
    beta1, beta2 = group["betas"]
    m.lerp_(gradient, 1 - beta1)
    v.addcmul_(square, torch.sign(v - square), value=beta2 - 1)
    parameter.addcdiv_(m, v.sqrt().add_(group["tau"]), value=-group["lr"])
