"""The objects that one worker holds, with their labels. Who may see them is the policy's business."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedlightning.pointers.messages import ObjectDescription, Ref, TensorDescription


@dataclass(frozen=True, slots=True)
class Label:
    """Say what is known of an object beside its value.

    Args:
        tags: Words to find it by.
        description: For people.
        private: Whether it is a data owner's, or was computed from what is.
        owner: The data owner's name, if it has one.
    """

    tags: tuple[str, ...] = ()
    description: str = ""
    private: bool = False
    owner: str | None = None


PLAIN = Label()
DERIVED = Label(description="computed from private data", private=True)


class ObjectStore:
    """Hold a worker's objects by identifier, in the order of their arrival."""

    def __init__(self) -> None:
        # Labels are kept apart: most objects are intermediate results and have none.
        self.objects: dict[int, Any] = {}
        self.labels: dict[int, Label] = {}

    def put(self, object_id: int, value: Any, label: Label = PLAIN) -> None:
        """Place an object.

        Raises:
            KeyError: The identifier is taken.
        """
        if object_id in self.objects:
            raise KeyError(f"object {object_id} exists already")
        if label is not PLAIN:
            self.labels[object_id] = label
        self.objects[object_id] = value

    def get(self, object_id: int) -> Any:
        """Return an object.

        Raises:
            KeyError: There is none of this identifier.
        """
        try:
            return self.objects[object_id]
        except KeyError:
            raise KeyError(f"no object {object_id} here: it was fetched, deleted, or never arrived") from None

    def drop(self, object_id: int) -> None:
        """Let an object go; one that is gone already is passed over."""
        if self.labels:
            self.labels.pop(object_id, None)
        self.objects.pop(object_id, None)

    def label(self, object_id: int) -> Label:
        """Return an object's label."""
        return self.labels.get(object_id, PLAIN)

    def resolve(self, value: Any) -> Any:
        """Replace each reference in nested tuples, lists and dicts by its object."""
        if type(value) is Ref:
            return self.get(value.object_id)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(self.resolve, value))
        if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
            return type(value)(map(self.resolve, value))
        if type(value) is dict:
            return {key: self.resolve(item) for key, item in value.items()}
        if type(value) is slice:
            return slice(self.resolve(value.start), self.resolve(value.stop), self.resolve(value.step))
        return value

    def any_private(self, value: Any) -> bool:
        """Tell whether a reference in nested tuples, lists and dicts leads to a private object."""
        if not self.labels:
            return False
        if type(value) is Ref:
            return self.label(value.object_id).private
        if isinstance(value, (list, tuple)):
            return any(map(self.any_private, value))
        if type(value) is dict:
            return any(map(self.any_private, value.values()))
        return False

    def with_gradient(self) -> frozenset[int]:
        """Return the identifiers of the tensors that have a gradient."""
        return frozenset(key for key, value in list(self.objects.items()) if _has_gradient(value))

    def search(self, tags: tuple[str, ...]) -> list[int]:
        """Return the identifiers of the objects that carry all of the tags."""
        return [object_id for object_id, label in list(self.labels.items()) if set(tags) <= set(label.tags)]

    def describe(self, object_id: int) -> TensorDescription | ObjectDescription:
        """Tell what a pointer may know of an object."""
        value, label = self.get(object_id), self.label(object_id)
        if isinstance(value, Tensor):
            return describe_tensor(value, object_id)
        return ObjectDescription(object_id, type(value).__name__, label.tags, label.description)


def _has_gradient(value: Any) -> bool:
    return isinstance(value, Tensor) and (value.is_leaf or value.retains_grad) and value.grad is not None


def describe_tensor(value: Tensor, object_id: int) -> TensorDescription:
    """Tell what a pointer may know of a tensor, never its values.

    Args:
        value: A tensor of any shape and dtype.
        object_id: Its identifier in the store.
    """
    layout = value.layout
    strided = layout is _STRIDED
    return TensorDescription(
        object_id,
        value.shape,
        value.stride() if strided else None,
        int(value.storage_offset()) if strided else None,
        value.dtype,
        layout,
        value.device,
        value.requires_grad,
        value.is_leaf,
    )


_STRIDED = torch.strided
