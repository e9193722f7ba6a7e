"""The parameters and buffers of a chunk of workers, stacked, and how they take a module's places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class Places:
    """Where a module keeps what differs from worker to worker: trained parameters, and all buffers.

    Args:
        module: The module.
        optimizer: Its optimizer; parameters that it does not step are the same at all workers.

    Attributes:
        parameters: All parameters of the module.
        trained: Positions among them of those that are trained.
        groups: For each group of the optimizer, which of the trained parameters it steps; -1 for one that is
            frozen.
    """

    def __init__(self, module: nn.Module, optimizer: Optimizer) -> None:
        stepped = {id(tensor) for group in optimizer.param_groups for tensor in group["params"]}
        self.module = module
        self.parameters = list(module.parameters())
        self.trained = [
            position
            for position, parameter in enumerate(self.parameters)
            if parameter.requires_grad and id(parameter) in stepped
        ]
        numbers = {id(self.parameters[position]): n for n, position in enumerate(self.trained)}
        self.groups = [
            [numbers.get(id(tensor), -1) for tensor in group["params"]] for group in optimizer.param_groups
        ]
        self._slots = _slots_of(module, "_parameters", [self.parameters[p] for p in self.trained])
        self._buffer_slots = _slots_of(module, "_buffers", list(module.buffers()))

    @property
    def trained_names(self) -> list[str]:
        """Names of the trained parameters for ``functional_call``, in a module whose child is this one."""
        names = {id(parameter): name for name, parameter in self.module.named_parameters(prefix="module")}
        return [names[id(self.parameters[position])] for position in self.trained]

    @property
    def start(self) -> list[Tensor]:
        """The trained parameters as they are now."""
        return [self.parameters[position].detach() for position in self.trained]

    @property
    def buffers(self) -> list[Tensor]:
        """The buffers as they are now."""
        return list(self.module.buffers()) if self._buffer_slots else []

    @property
    def replaced(self) -> list[Tensor]:
        """The module's own tensors, whose places others take."""
        return [*(self.parameters[position] for position in self.trained), *self.buffers]

    @contextmanager
    def filled(self, parameters: Sequence[Tensor], buffers: Sequence[Tensor]) -> Iterator[None]:
        """Let other tensors take the places of the module's own within the block.

        ``torch.func.functional_call`` does the same for any kind of module, and takes as long as a forward
        of a small one.

        Args:
            parameters: In place of the trained ones.
            buffers: In place of the buffers.
        """
        kept = [slots[name] for slots, name, _ in (*self._slots, *self._buffer_slots)]
        try:
            for slots, name, number in self._slots:
                slots[name] = parameters[number]
            for slots, name, number in self._buffer_slots:
                slots[name] = buffers[number]
            yield
        finally:
            for (slots, name, _), tensor in zip((*self._slots, *self._buffer_slots), kept, strict=True):
                slots[name] = tensor

    def current_buffers(self, count: int) -> list[Tensor]:
        """Return what is in the places of the buffers now: modules exchange them, rather than fill them."""
        found: dict[int, Tensor] = {number: slots[name] for slots, name, number in self._buffer_slots}
        return [found[number] for number in range(count)]


class Stack:
    """Memory for the parameters and buffers of as many workers as one chunk may have.

    It is used for one chunk after another: what a chunk has left is read before the next one starts.

    Args:
        places: What is stacked.
        workers: How many workers a chunk may have.
        by_channel: Whether weights of convolutions lie channel by channel. An only worker's take a fifth less
            time then; many workers' are convolved as groups, where they do not.
    """

    def __init__(self, places: Places, workers: int, *, by_channel: bool = False) -> None:
        self.places = places
        self.workers = workers
        self.parameters = [_rows_of(tensor, workers, by_channel) for tensor in places.start]
        self.buffers = [tensor.new_empty(workers, *tensor.shape) for tensor in places.buffers]
        self._by_channel = by_channel
        self._start: list[Tensor] = []

    @property
    def tensors(self) -> list[Tensor]:
        """All of the memory."""
        return [*self.parameters, *self.buffers]

    def take_start(self) -> None:
        """Keep aside what the global module is now, to let workers start from it."""
        if not self._start:
            # It lies as the rows do, so that a start is no more than a copy.
            self._start = [_rows_of(tensor, 1, self._by_channel)[0] for tensor in self.places.start]
        torch._foreach_copy_(self._start, self.places.start)

    @torch.no_grad()
    def begin(self, workers: int) -> None:
        """Let workers start from what was kept aside, and from the buffers that the global module has.

        Args:
            workers: How many.
        """
        torch._foreach_copy_([stack[:workers] for stack in self.parameters], self._start)
        for stack, buffer in zip(self.buffers, self.places.buffers, strict=True):
            stack[:workers].copy_(buffer)

    def parameters_of(self, worker: int) -> list[Tensor]:
        """Return all parameters of one worker's module, as views."""
        own: list[Tensor] = [parameter.detach() for parameter in self.places.parameters]
        for number, position in enumerate(self.places.trained):
            own[position] = self.parameters[number][worker]
        return own

    def mean_parameters(self, weights: Sequence[float]) -> list[Tensor]:
        """Return the weighted mean of all parameters of the first workers, or those of the only one.

        Args:
            weights: Theirs, positive.
        """
        if len(weights) == 1:
            return self.parameters_of(0)
        mean: list[Tensor] = [parameter.detach() for parameter in self.places.parameters]
        shares = torch.tensor(weights, dtype=torch.float64) / sum(weights)
        for number, position in enumerate(self.places.trained):
            rows = self.parameters[number][: len(weights)]
            mean[position] = torch.matmul(shares.to(rows), rows.flatten(1)).view(rows.shape[1:])
        return mean

    def buffers_of(self, worker: int) -> list[Tensor]:
        """Return all buffers of one worker's module, as views."""
        return [stack[worker] for stack in self.buffers]


def _rows_of(tensor: Tensor, workers: int, by_channel: bool) -> Tensor:
    shape = (workers, *tensor.shape)
    if by_channel and tensor.dim() == 4:
        return tensor.new_empty(shape[0], shape[1], *shape[3:], shape[2]).movedim(-1, 2)
    return tensor.new_empty(shape)


def _slots_of(
    module: nn.Module, kind: str, tensors: Sequence[Tensor]
) -> list[tuple[dict[str, Any], str, int]]:
    """Find every place of some tensors; shared ones have several."""
    numbers = {id(tensor): number for number, tensor in enumerate(tensors)}
    return [
        (slots, name, numbers[id(tensor)])
        for child in module.modules()
        for slots in (getattr(child, kind),)
        for name, tensor in slots.items()
        if tensor is not None and id(tensor) in numbers
    ]
