"""Tensors as a table of what they are, and raw buffers of what they hold.

Each arrives in memory of its own.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from fedlightning.pointers.arguments import handle_of
from fedlightning.workers.remote.errors import MalformedMessageError, UnsendableError

# Quantized and packed types cannot be viewed as bytes and are left out.
DTYPES: dict[str, torch.dtype] = {
    str(value).removeprefix("torch."): value
    for value in vars(torch).values()
    if isinstance(value, torch.dtype) and not str(value).startswith(("torch.q", "torch.bits"))
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_NUMBERS_IN_C = frozenset({torch.float32, torch.float64, torch.int32, torch.int64})
_MOST_DIMENSIONS = 64


class TensorTable:
    """Collect the tensors of a message that is about to be sent.

    Attributes:
        entries: For each tensor, plain items: dtype, shape, order of dimensions in memory, whether it
            requires a gradient, position of its gradient in the table, device.
        memories: For each tensor that has any, its bytes; not copied where it is dense.
        nbytes: How many those are altogether.
    """

    def __init__(self) -> None:
        self.entries: list[list[Any]] = []
        self.memories: list[memoryview] = []
        self.nbytes = 0
        self._positions: dict[int, int] = {}
        # Held until the message is sent, so that no other tensor gets the same Python identity.
        self._seen: list[Tensor] = []

    def add(self, tensor: Tensor) -> int:
        """Enter a tensor, once, and return its position.

        Raises:
            UnsendableError: It has no plain memory: it is a pointer, sparse, quantized, or a subclass.
        """
        position = self._positions.get(id(tensor))
        if position is None:
            _check_sendable(tensor)
            gradient = self.add(tensor.grad) if tensor.is_leaf and tensor.grad is not None else None
            dense = _dense_on_cpu(tensor)
            order = None if dense.is_contiguous() else _memory_order(dense)
            device = None if tensor.device.type == "cpu" else str(tensor.device)
            entry = [_NAMES[dense.dtype], list(dense.shape), order, tensor.requires_grad, gradient, device]
            self.entries.append(entry)
            if memory := bytes_of(dense):
                self.memories.append(memory)
                self.nbytes += len(memory)
            self._seen.append(tensor)
            position = self._positions[id(tensor)] = len(self.entries) - 1
        return position


def allocate(entries: Any, total: int) -> list[Tensor]:
    """Make empty tensors for a table that has arrived, before their bytes do.

    Args:
        entries: The table; not trusted.
        total: How many bytes are to come.

    Returns:
        Tensors on the CPU, whose bytes (see `bytes_of`) are to be filled in the same order.

    Raises:
        MalformedMessageError: The table makes no sense, or asks for other memory than what is to come.
    """
    if type(entries) is not list:
        raise MalformedMessageError("the table of tensors is no list")
    if not entries and not total:
        return []
    shapes, expected = [], 0
    for entry in entries:
        dtype, shape, order = _checked(entry)
        shapes.append((dtype, shape, order))
        expected += math.prod(shape) * dtype.itemsize
    if expected != total:
        raise MalformedMessageError(f"the table of tensors does not add up to the {total} bytes announced")
    try:
        return [
            torch.empty(shape, dtype=dtype)
            if order is None
            else torch.empty_permuted(shape, order, dtype=dtype)
            for dtype, shape, order in shapes
        ]
    except RuntimeError as error:
        raise MalformedMessageError(f"no memory for {total} bytes of tensors: {error}") from error


def finish(tensors: list[Tensor], entries: list[list[Any]]) -> list[Tensor]:
    """Complete tensors whose bytes have arrived.

    Args:
        tensors: As `allocate` made them, filled.
        entries: Their table.

    Raises:
        MalformedMessageError: A gradient does not fit its tensor, or a device is not here.
    """
    finished: list[Tensor] = []
    for tensor, (_, _, _, requires_grad, gradient, device) in zip(tensors, entries, strict=True):
        if tensor.dtype == torch.bool:
            # A byte that is neither 0 nor 1 is no bool, and what an operation makes of it is undefined.
            tensor.view(torch.uint8).clamp_(max=1)
        try:
            placed = tensor if device is None else tensor.to(device)
            if requires_grad is True:
                placed.requires_grad_()
            if gradient is not None:
                placed.grad = finished[gradient]
        except (RuntimeError, TypeError, IndexError) as error:
            raise MalformedMessageError(f"a tensor cannot be made: {error}") from error
        finished.append(placed)
    return finished


def bytes_of(tensor: Tensor) -> memoryview:
    """Return the memory of a dense tensor as writable bytes, in the order in which it lies there."""
    order = None if tensor.is_contiguous() else _memory_order(tensor)
    laid_out = tensor if order is None else tensor.permute(order)
    if laid_out.dtype in _NUMBERS_IN_C and laid_out.numel():
        # The shortest way, for loss values and the like: a call of torch's is dear after a step of training.
        return laid_out.numpy().data.cast("B")
    return laid_out.view(-1).view(torch.uint8).numpy().data


def _check_sendable(tensor: Tensor) -> None:
    if handle_of(tensor) is not None:
        raise UnsendableError(f"{tensor!r} is a pointer, which means nothing elsewhere: call .get() first")
    if type(tensor) not in (Tensor, nn.Parameter, nn.Buffer):
        raise UnsendableError(f"a {type(tensor).__name__} cannot be sent: send plain tensors")
    if tensor.layout is not torch.strided or tensor.is_nested:
        raise UnsendableError(f"a tensor of layout {tensor.layout} cannot be sent: call .to_dense() first")
    if tensor.is_quantized or tensor.dtype not in _NAMES:
        raise UnsendableError(f"a tensor of {tensor.dtype} cannot be sent: call .dequantize() first")
    if tensor.is_meta:
        raise UnsendableError("a tensor on the device meta has no values to send")


def _dense_on_cpu(tensor: Tensor) -> Tensor:
    plain = tensor.detach()
    if plain.device.type != "cpu" or plain.is_conj() or plain.is_neg():
        plain = plain.cpu().resolve_conj().resolve_neg()
    # Cloned as in process, so that what is computed from it has the same bits.
    return plain if plain.is_contiguous() or _memory_order(plain) is not None else plain.clone()


def _memory_order(tensor: Tensor) -> list[int] | None:
    """Return the dimensions from outermost to innermost in memory; None if there are gaps or overlaps."""
    strides = tensor.stride()
    order = sorted(range(tensor.dim()), key=lambda dim: -strides[dim])
    return order if tensor.permute(order).is_contiguous() else None


def _checked(entry: Any) -> tuple[torch.dtype, list[int], list[int] | None]:
    if type(entry) is not list or len(entry) != 6:
        raise MalformedMessageError("an entry in the table of tensors has no six items")
    name, shape, order, _, gradient, device = entry
    if type(name) is not str or name not in DTYPES:
        raise MalformedMessageError(f"{name!r} is no dtype")
    if not _is_list_of_counts(shape) or len(shape) > _MOST_DIMENSIONS:
        raise MalformedMessageError(f"{shape!r:.100} is no shape")
    if order is not None and (not _is_list_of_counts(order) or sorted(order) != list(range(len(shape)))):
        raise MalformedMessageError(f"{order!r:.100} is no order of {len(shape)} dimensions")
    if gradient is not None and (type(gradient) is not int or gradient < 0):
        raise MalformedMessageError(f"{gradient!r:.100} is no position of a gradient")
    if device is not None and type(device) is not str:
        raise MalformedMessageError(f"{device!r:.100} is no device")
    return DTYPES[name], shape, order


def _is_list_of_counts(value: Any) -> bool:
    if type(value) is not list:
        return False
    return not value or all(type(item) is int and 0 <= item < 2**62 for item in value)
