"""Whose data an object was computed from. The label lies on the storage: aliases and views share it.

What follows from a label is for the policy to say; how labels spread with operations is in `tracking`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import Parameter

from fedlightning.workers.contents import tensors_in
from fedlightning.workers.policy import PUBLIC, Label
from fedlightning.workers.store import Held

_books = count()

Versions: TypeAlias = tuple[int, ...]
"""How often each tensor of an object has been written to."""


class LabelBook:
    """Keep the labels of one worker's objects.

    Dense tensors have theirs on the storage, as an attribute of torch's storage object, which lives as long
    as the memory does; no table of addresses can then mistake new memory for old. Other objects have theirs
    by identifier.

    Attributes:
        active: Whether there is any label; as long as there is none, nobody need look for one.
    """

    def __init__(self) -> None:
        # A name of its own per book: workers of one process may hold views of the same memory.
        self._attribute = f"_fedlightning_label_{next(_books)}"
        self._by_operation = f"{self._attribute}_by_operation"
        self._of_objects: dict[int, Label] = {}
        self._of_backward: Label = PUBLIC
        self._tensors_are_shared = False
        self.active = False

    def of_tensor(self, tensor: Tensor) -> Label:
        """Return the label of a tensor's memory, apart from its gradient's."""
        try:
            label: Label = tensor.untyped_storage().__dict__.get(self._attribute, PUBLIC)
        except (NotImplementedError, RuntimeError):
            return PUBLIC.union(*map(self.of_tensor, _dense_parts(tensor)))
        return label

    def of_gradient(self, tensor: Tensor) -> Label:
        """Return what the gradient of a tensor must be taken to contain, beside its own label."""
        return PUBLIC if tensor.is_leaf else self._of_backward

    def of(self, object_id: int, value: Any) -> Label:
        """Return the label of an object with all that it holds, such as gradients.

        What an object other than a tensor holds is looked at only if one of its tensors may also be reached
        without it, by a single operation.
        """
        label = self._of_objects.get(object_id, PUBLIC)
        if isinstance(value, Tensor) or self._tensors_are_shared:
            for tensor in tensors_in(value):
                label |= self.of_tensor(tensor)
                if not tensor.is_leaf and tensor.retains_grad:
                    label |= self._of_backward
        return label

    def of_operands(self, found: Iterable[Held]) -> Label:
        """Return the union of the labels of an operation's operands, whose gradients do not count."""
        label = PUBLIC
        for object_id, tensor in found:
            own = self.of_tensor(tensor) or self._of_objects.get(object_id, PUBLIC)
            # Operands from the same data share one set: then the union costs no new one.
            if own is not label:
                label = label | own if label else own
        return label

    def of_arguments(self, found: Iterable[Held]) -> Label:
        """Return the union of the labels of a program's arguments, with all that they hold."""
        return PUBLIC.union(*(self.of(object_id, held) for object_id, held in found))

    def add(self, object_id: int, value: Any, label: Label) -> None:
        """Add to the label of an object; what else shares its memory has it too."""
        if not label:
            return
        self.active = True
        if not (isinstance(value, Tensor) and self.add_to_tensor(value, label)):
            self._of_objects[object_id] = self._of_objects.get(object_id, PUBLIC) | label

    def add_to_tensor(self, tensor: Tensor, label: Label, *, by_operation: bool = False) -> bool:
        """Add to the label of a tensor's memory.

        Args:
            tensor: Any tensor.
            label: Whose data went in.
            by_operation: Whether a single operation did it, and not a reviewed program.

        Returns:
            Whether it has memory of its own to bear one; sparse and opaque tensors have not.
        """
        if not is_dense(tensor):
            return False
        attributes = tensor.untyped_storage().__dict__
        attributes[self._attribute] = attributes.get(self._attribute, PUBLIC) | label
        if by_operation:
            attributes[self._by_operation] = True
        return True

    def add_to_arguments(
        self, found: Sequence[Held], label: Label, before: Sequence[Versions | None]
    ) -> None:
        """Add to the labels of all that a program got together with private data: it may have kept some.

        Args:
            found: What it got.
            label: Whose data that was; nothing to add if it is empty.
            before: What `versions_before` said before the program ran. What has not been written to since
                does not count as something that all of them have contributed to.
        """
        if not label:
            return
        possible = frozenset(replace(source, certain=False) for source in label)
        for (object_id, held), versions in zip(found, before, strict=True):
            written = versions is None or _versions_of(held) != versions
            added = label if written else possible - _uncertain(self._own(object_id, held))
            self.add(object_id, held, added)
            if isinstance(held, Tensor):
                self.add_to_gradients(leaves_of([held]), added)
            elif self._tensors_are_shared:
                for tensor in tensors_in(held):
                    self.add_to_tensor(tensor, added)

    def versions_before(self, found: Iterable[Held], label: Label) -> list[Versions | None]:
        """Return what will tell which of a program's arguments it has written to.

        Args:
            found: What it gets.
            label: Whose data is among that.

        Returns:
            For each the versions of its tensors, or None where the label is its own already: then it makes no
            difference, and a worker's data is not looked through.
        """
        return [
            None if label <= self._own(object_id, held) else _versions_of(held) for object_id, held in found
        ]

    def _own(self, object_id: int, held: Any) -> Label:
        own = self._of_objects.get(object_id, PUBLIC)
        return own | self.of_tensor(held) if isinstance(held, Tensor) else own

    def add_to_gradients(self, leaves: Iterable[Tensor], label: Label) -> None:
        """Add to the labels of the gradients that a backward from private values has left.

        Retained gradients of intermediate tensors count as touched by each such backward.

        Args:
            leaves: What it accumulated into.
            label: Whose data went in; nothing to add if it is empty.
        """
        if not label:
            return
        self._of_backward |= label
        for leaf in leaves:
            if leaf.grad is not None:
                self.add_to_tensor(leaf.grad, label, by_operation=True)

    def written_by_operations(self, value: Any) -> bool:
        """Tell whether single operations have written private data into the tensors of an object."""
        if not (self.active and self._tensors_are_shared):
            return False
        storages = (tensor.untyped_storage() for tensor in tensors_in(value) if is_dense(tensor))
        return any(self._by_operation in storage.__dict__ for storage in storages)

    def note_program(self, found: Iterable[Held], result: Any) -> None:
        """Note what a program got and left here: after that, a tensor and an object may share memory.

        Args:
            found: What it got.
            result: What it left at the worker.
        """
        if not self._tensors_are_shared:
            self._tensors_are_shared = isinstance(result, Tensor) or any(
                isinstance(held, Tensor) for _, held in found
            )

    def forget(self, object_id: int) -> None:
        """Let go of an object's own label; memory keeps its own as long as it lives."""
        if self._of_objects:
            self._of_objects.pop(object_id, None)


def _versions_of(held: Any) -> Versions:
    return tuple(0 if tensor.is_inference() else tensor._version for tensor in tensors_in(held))


def _uncertain(label: Label) -> Label:
    return frozenset(replace(source, certain=False) for source in label if source.certain)


def is_dense(tensor: Tensor) -> bool:
    """Tell whether a tensor is an ordinary one, whose memory can bear a label."""
    return type(tensor) in (Tensor, Parameter) and tensor.layout is torch.strided and not tensor.is_nested


def leaves_of(roots: Iterable[Any]) -> list[Tensor]:
    """Return the leaves that a backward would accumulate into, to be asked before there is no graph left.

    They are found through the graph, because one that no pointer leads to may be found again later.

    Args:
        roots: Tensors where it starts.
    """
    return list(_leaves(roots))


def _leaves(roots: Iterable[Any]) -> Iterator[Tensor]:
    waiting = []
    for root in roots:
        if isinstance(root, Tensor):
            if root.grad_fn is None:
                yield root
            waiting.append(root.grad_fn)
    seen = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        waiting.extend(following for following, _ in node.next_functions)


def _dense_parts(tensor: Tensor) -> tuple[Tensor, ...]:
    if tensor.layout is torch.sparse_coo:
        return tensor._indices(), tensor._values()
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return tensor.crow_indices(), tensor.col_indices(), tensor.values()
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return tensor.ccol_indices(), tensor.row_indices(), tensor.values()
    return ()
