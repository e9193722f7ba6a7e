"""Operations with private operands: labels spread to all that is touched, and nothing is told on the side.

Whether a value may leave is for the policy; operations on public operands never come here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from typing_extensions import override

from fedlightning.workers.drawing import DRAWS_BY_VALUE, steady_generator
from fedlightning.workers.labels import LabelBook, is_dense
from fedlightning.workers.policy import PUBLIC, Label

# These return a plain value, about which the policy is asked when it leaves.
RETURNS_A_VALUE = frozenset(
    f"{place}.{name}"
    for place in ("torch", "torch.Tensor")
    for name in ("allclose", "equal", "is_nonzero", "is_same_size", "is_set_to", "__repr__")
)
# They read positions out of tensors without torch's noticing.
_READ_SILENTLY = frozenset(
    {
        "torch.tensor_split",
        "torch.Tensor.tensor_split",
        "torch._VF._pack_padded_sequence",
        "torch._VF._pad_packed_sequence",
    }
)
# They hand out a tensor that is not computed from their operand.
GRADIENTS = frozenset({"torch.Tensor.grad.__get__", "torch.Tensor._grad.__get__"})


class Tracking:
    """Follow one operation with private operands.

    Args:
        labels: The worker's labels.
        label: Whose data the operands are.
        operation: Its name.
        operands: The operands, with the worker's objects in place of references.
        reveal: Called before a shape becomes known that depends on private values; raises if it may not.
    """

    def __init__(
        self, labels: LabelBook, label: Label, operation: str, operands: Any, reveal: Callable[[str], None]
    ) -> None:
        self.labels = labels
        self.label = label
        self._operation = operation
        self._reveal = reveal
        self._tensors = list(_tensors(operands))
        self._before = [_state(tensor) for tensor in self._tensors]

    def run(self, function: Callable[[], Any]) -> Any:
        """Run the operation, with an eye on what it writes and on what it reads for itself.

        Args:
            function: The operation, operands and all.

        Raises:
            NotImplementedError: An operand or result is of a kind that cannot bear a label.
            Exception: What the operation raises, or ``reveal``.
        """
        if self._operation in _READ_SILENTLY:
            self.will_read(self._operation, self._tensors[1:])
        try:
            with _Watch(self):
                result = function()
        finally:
            self._label_what_changed()
        for tensor in _tensors(result):
            self._check_dense(tensor)
        return result

    def label_of_result(self, result: Tensor) -> Label:
        """Return what to add to the label of a tensor that the operation returned.

        A view of an operand shares the operand's label, which is right for it already.
        """
        storage = result.untyped_storage()
        is_view = any(storage is tensor.untyped_storage() for tensor in self._tensors if is_dense(tensor))
        return PUBLIC if is_view and self._operation not in GRADIENTS else self.label

    def will_write(self, value: Any) -> None:
        """Label what a kernel is about to write to."""
        for tensor in _tensors(value):
            if any(tensor is operand for operand in self._tensors):
                self._check_dense(tensor)
            self.labels.add_to_tensor(tensor, self.label, by_operation=True)

    def will_read(self, name: str, tensors: Iterable[Tensor]) -> None:
        """Ask before a kernel reads values that decide on a shape; the controller's own may be read."""
        if self._operation not in RETURNS_A_VALUE and not all(map(self._is_public_operand, tensors)):
            self._reveal(name)

    def _is_public_operand(self, tensor: Tensor) -> bool:
        storage = tensor.untyped_storage() if is_dense(tensor) else None
        known = any(storage is operand.untyped_storage() for operand in self._tensors if is_dense(operand))
        return known and not self.labels.of_tensor(tensor)

    def _check_dense(self, tensor: Tensor) -> None:
        if not is_dense(tensor):
            raise NotImplementedError(f"{tensor.layout} {type(tensor).__name__}")

    def _label_what_changed(self) -> None:
        for tensor, before in zip(self._tensors, self._before, strict=True):
            if _state(tensor) != before:
                self.labels.add_to_tensor(tensor, self.label, by_operation=True)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """See the kernels that an operation runs, before they run."""

    def __init__(self, tracking: Tracking) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._tracking = tracking

    @override
    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kernel, kwargs = _kernel(func), kwargs or {}
        for position, name in kernel.written:
            self._tracking.will_write(args[position] if position < len(args) else kwargs.get(name))
        if kernel.reads_masks:
            masks = [one for one in _tensors(args[1:]) if one.dtype in (torch.bool, torch.uint8)]
            self._tracking.will_read(str(func), masks)
        elif kernel.reads:
            self._tracking.will_read(str(func), _tensors((args, kwargs)))
        if kernel.draws_by_value:
            with steady_generator(kwargs.get("generator")):
                return func(*args, **kwargs)
        return func(*args, **kwargs)


class _Kernel(NamedTuple):
    """What must be known of a kernel: what it writes, and what about it depends on values."""

    written: tuple[tuple[int, str], ...]
    reads: bool
    reads_masks: bool
    draws_by_value: bool


@cache
def _kernel(func: Any) -> _Kernel:
    # Batch norm's kernels write running statistics without declaring it, or counting it as a change.
    written = tuple(
        (position, argument.name)
        for position, argument in enumerate(func._schema.arguments)
        if argument.name.startswith("running_") or (argument.alias_info and argument.alias_info.is_write)
    )
    reads = torch.Tag.dynamic_output_shape in func.tags or torch.Tag.data_dependent_output in func.tags
    packet = func.overloadpacket
    reads_masks = reads and packet is torch.ops.aten.index
    return _Kernel(written, reads, reads_masks, packet.__name__ in DRAWS_BY_VALUE)


def _state(tensor: Tensor) -> tuple[Any, ...]:
    # The storage too: assigning to `.data` exchanges it and leaves the graph, which remembers private values.
    version = object() if tensor.is_inference() else tensor._version
    return version, tensor.untyped_storage() if is_dense(tensor) else None


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))
    elif isinstance(value, slice):
        yield from _tensors((value.start, value.stop, value.step))
