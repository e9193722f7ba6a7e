"""Optimizers over stacked parameters: torch's own, which work on each number by itself, step many at once.

Only those whose update of a number depends on that number's own past can be stepped so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.optim import SGD, Adadelta, Adam, Adamax, AdamW, NAdam, Optimizer, RAdam, RMSprop

from fedlightning.local.lean import LeanSGD, is_listened_to
from fedlightning.local.vectorised.gradients import Gradients

ELEMENTWISE: frozenset[type[Optimizer]] = frozenset(
    {SGD, Adam, AdamW, RMSprop, Adadelta, Adamax, NAdam, RAdam}
)

Scalars: TypeAlias = Mapping[str, Any]
"""What an optimizer keeps of a parameter as a whole, such as the number of steps."""

SCALARS = frozenset({"step", "mu_product"})
"""Names of these."""

_ROLLING = "momentum_buffer"
_STEPPED: Scalars = {}

StartStates: TypeAlias = Mapping[int, tuple[Scalars, Mapping[str, Tensor]]]
"""What workers start with, by the number of the parameter: what all have alike, and stacks of tensors."""


def why_not_stackable(optimizer: Optimizer) -> str:
    """Say what keeps an optimizer from stepping many workers' parameters at once; nothing if nothing does."""
    name = type(optimizer).__name__
    if type(optimizer) not in ELEMENTWISE:
        return f"the optimizer {name}"
    if is_listened_to(optimizer):
        return f"hooks on the steps of {name}"
    if any(group.get("capturable") or group.get("differentiable") for group in optimizer.param_groups):
        return f"{name}(capturable=True) or (differentiable=True)"
    return ""


class StackedOptimizer:
    """Step what the workers of a chunk train, by the settings of one optimizer.

    Args:
        optimizer: The module's optimizer; not changed.
        workers: How many there are in the chunk.
        positions: For each of its groups, which of the stacked parameters it steps.

    Attributes:
        is_plain: Whether it is SGD that keeps nothing from step to step.
        takes_factors: Whether it steps by the factors of a linear map's gradient.
    """

    def __init__(self, optimizer: Optimizer, workers: int, positions: Sequence[Sequence[int]]) -> None:
        self._optimizer = optimizer
        self._workers = workers
        self._positions = positions
        self.is_plain = LeanSGD.fits(optimizer)
        self.takes_factors = self.is_plain or (
            type(optimizer) is SGD and all(map(_rolls, optimizer.param_groups))
        )
        # By parameter: states of the parameters' own shape, stacked likewise, and for each worker the others.
        self._stacked: dict[int, dict[str, Tensor]] = defaultdict(dict)
        self._scalars: dict[int, list[Scalars | None]] = defaultdict(lambda: [None] * workers)

    @torch.no_grad()
    def step(self, rows: slice, parameters: Sequence[Tensor], gradients: Gradients) -> None:
        """Step the parameters of some of the workers, in place.

        Args:
            rows: Which workers.
            parameters: Theirs, each of shape ``(workers, ...)``.
            gradients: Theirs; a parameter without one is not stepped.
        """
        if self.is_plain:
            self._descend(parameters, gradients)
            return
        workers = range(*rows.indices(rows.stop))
        if self.takes_factors:
            for span in self._alike(workers, gradients.known):
                self._roll(
                    span, slice(span.start - rows.start, span.stop - rows.start), parameters, gradients
                )
            return
        every = gradients.in_full().whole
        for span in self._alike(workers, gradients.known):
            own = slice(span.start - rows.start, span.stop - rows.start)
            self._step_alike(
                span,
                [parameter[own] for parameter in parameters],
                [None if gradient is None else gradient[own] for gradient in every],
            )

    def state_of(self, worker: int) -> dict[int, dict[str, Any]]:
        """Return a worker's state, as `Optimizer.state_dict` has it: by the parameter's number in the groups.

        Args:
            worker: Its position in the chunk.
        """
        state = {}
        for number, position in enumerate(position for group in self._positions for position in group):
            scalars = self._scalars[position][worker] if position >= 0 else None
            if scalars is None:
                continue
            tensors = {name: stack[worker].clone() for name, stack in self._stacked[position].items()}
            if scalars or tensors:
                state[number] = {**{name: _copied(value) for name, value in scalars.items()}, **tensors}
        return state

    def left_by(self, workers: Sequence[int]) -> Iterator[tuple[list[int], dict[int, dict[str, Tensor]]]]:
        """Yield the states of some workers, stacked, as many as have states of the same tensors at once.

        Args:
            workers: Their positions in the chunk.

        Yields:
            Positions, and what `state_of` returns for each of them, stacked.
        """
        numbers = [
            (number, position)
            for number, position in enumerate(position for group in self._positions for position in group)
            if position >= 0 and position in self._scalars
        ]
        alike: dict[tuple[bool, ...], list[int]] = {}
        for worker in workers:
            stepped = tuple(self._scalars[position][worker] is not None for _, position in numbers)
            alike.setdefault(stepped, []).append(worker)
        for stepped, some in alike.items():
            found = [number for number, there in zip(numbers, stepped, strict=True) if there]
            stacks = {number: self._stacks_of(position, some) for number, position in found}
            yield some, {number: own for number, own in stacks.items() if own}

    def _stacks_of(self, position: int, workers: Sequence[int]) -> dict[str, Tensor]:
        scalars = [self._scalars[position][worker] or {} for worker in workers]
        stacks = {name: torch.stack([torch.as_tensor(own[name]) for own in scalars]) for name in scalars[0]}
        every = len(workers) == len(self._scalars[position])
        for name, stack in self._stacked[position].items():
            stacks[name] = stack if every else stack[list(workers)]
        return stacks

    def load(self, start: StartStates) -> None:
        """Go on with the states that the workers have kept.

        Args:
            start: Theirs, in the order of the chunk.
        """
        for number, position in enumerate(position for group in self._positions for position in group):
            if number in start:
                scalars, stacks = start[number]
                self._stacked[position] = dict(stacks)
                self._scalars[position] = [scalars if scalars or stacks else None] * self._workers

    def _descend(self, parameters: Sequence[Tensor], gradients: Gradients) -> None:
        for group, positions in zip(self._optimizer.param_groups, self._positions, strict=True):
            rate, decay = group["lr"], group["weight_decay"]
            if decay:
                shrunk = [p for p in positions if p in gradients.known]
                torch._foreach_mul_([parameters[p] for p in shrunk], 1 - rate * decay)
            whole = [
                (parameters[p], gradient)
                for p in positions
                if p >= 0 and (gradient := gradients.whole[p]) is not None
            ]
            if whole:
                torch._foreach_add_([p for p, _ in whole], [gradient for _, gradient in whole], alpha=-rate)
            for factors in gradients.factors:
                if factors.weight in positions:
                    outer = factors.outer.transpose(1, 2)
                    parameters[factors.weight].baddbmm_(outer, factors.inputs, alpha=-rate)

    def _roll(self, rows: slice, own: slice, parameters: Sequence[Tensor], gradients: Gradients) -> None:
        """Step by momentum: gradients go right into what rolls, as the factors that they are.

        Args:
            rows: Workers who have been stepped equally often.
            own: Which they are of those that parameters and gradients are given of.
            parameters: As for `step`.
            gradients: As for `step`.
        """
        for group, positions in zip(self._optimizer.param_groups, self._positions, strict=True):
            for p in positions:
                if p not in gradients.known:
                    continue
                parameter = parameters[p][own]
                kept, share = 0.0, 1.0
                if self._scalars[p][rows.start] is not None:
                    kept, share = group["momentum"], 1 - group["dampening"]
                rolling = self._rolling(p, rows, parameters[p])
                gradients.add_to(rolling, p, own, kept=kept, share=share)
                if group["weight_decay"]:
                    rolling.add_(parameter, alpha=share * group["weight_decay"])
                parameter.add_(rolling, alpha=-group["lr"])
                self._scalars[p][rows] = [_STEPPED] * (rows.stop - rows.start)

    def _rolling(self, position: int, rows: slice, like: Tensor) -> Tensor:
        stacks = self._stacked[position]
        if _ROLLING not in stacks:
            stacks[_ROLLING] = like.new_empty(self._workers, *like.shape[1:])
        return stacks[_ROLLING][rows]

    def _alike(self, workers: range, positions: Iterable[int]) -> Iterator[slice]:
        """Divide workers into spans of those whose parameters have been stepped equally often."""
        stepped = [self._scalars[position] for position in positions]
        start = workers.start
        for worker in workers[1:]:
            if any(of[worker] is not of[start] for of in stepped):
                yield slice(start, worker)
                start = worker
        yield slice(start, workers.stop)

    def _step_alike(
        self, rows: slice, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]
    ) -> None:
        optimizer = self._stand_in(parameters)
        for position, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            if gradient is None:
                continue
            parameter.grad = gradient
            scalars = self._scalars[position][rows.start]
            if scalars is not None:
                stacks = {name: stack[rows] for name, stack in self._stacked[position].items()}
                copied = {name: _copied(value) for name, value in scalars.items()}
                optimizer.state[parameter] = {**copied, **stacks}
        optimizer.step()
        for position, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            if gradient is not None:
                self._keep(position, rows, optimizer.state[parameter])

    def _stand_in(self, parameters: Sequence[Tensor]) -> Optimizer:
        settings = [{k: v for k, v in g.items() if k != "params"} for g in self._optimizer.param_groups]
        groups = [
            {**own, "params": [parameters[p] for p in positions if p >= 0]}
            for own, positions in zip(settings, self._positions, strict=True)
        ]
        kind: Any = type(self._optimizer)
        optimizer: Optimizer = kind([group for group in groups if group["params"]])
        return optimizer

    def _keep(self, position: int, rows: slice, state: Mapping[str, Any]) -> None:
        everyone, stacks = self._scalars[position], self._stacked[position]
        scalars = {name: value for name, value in state.items() if name in SCALARS}
        for name, value in state.items():
            if name in SCALARS or value is None:
                continue
            if name not in stacks:
                stacks[name] = value.new_zeros(len(everyone), *value.shape[1:])
            stacks[name][rows].copy_(value)
        everyone[rows] = [scalars] * (rows.stop - rows.start)


def _rolls(group: Mapping[str, Any]) -> bool:
    """Tell whether SGD steps by what rolls, and by nothing else."""
    return bool(group["momentum"]) and not (
        group["nesterov"] or group["maximize"] or isinstance(group["lr"], Tensor)
    )


def stacked_states(states: Sequence[Mapping[int, Mapping[str, Any]]]) -> StartStates:
    """Stack the states that some workers start with.

    Args:
        states: For each of them what `StackedOptimizer.state_of` returned; all of one `layout_of`.
    """
    start = {}
    for number, first in states[0].items() if states else ():
        scalars = {name: value for name, value in first.items() if name in SCALARS}
        names = [name for name, value in first.items() if name not in SCALARS and value is not None]
        start[number] = scalars, {name: torch.stack([own[number][name] for own in states]) for name in names}
    return start


def layout_of(state: Mapping[int, Mapping[str, Any]]) -> tuple[Any, ...]:
    """Return what two workers' states must have in common for the two to be stepped together."""
    return tuple(
        (number, name, float(value) if name in SCALARS else None)
        for number, own in sorted(state.items())
        for name, value in sorted(own.items())
        if value is not None
    )


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
