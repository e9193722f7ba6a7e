"""What travels between the controller and a worker: data, never code. How it travels is a worker's business.

Operations and programs go by name, objects by the identifier that the controller chose, so that a message can
be sent without waiting for the answer to the one before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch


@dataclass(frozen=True, slots=True)
class Ref:
    """Stand for an object of the receiving worker, inside a message's arguments.

    Args:
        object_id: Identifier of the object at the worker.
    """

    object_id: int


@dataclass(frozen=True, slots=True)
class Put:
    """Place an object at the worker.

    Args:
        object_id: Identifier that the object gets there.
        value: The object.
        tags: Words that `Search` finds it by.
        description: For people and for the egress ledger.
        private: Whether it belongs to a data owner and must not leave unless the worker's policy allows it.
        owner: The data owner's name, if it has one.
        round: Federated round, or None outside of rounds.
    """

    object_id: int
    value: Any
    tags: tuple[str, ...] = ()
    description: str = ""
    private: bool = False
    owner: str | None = None
    round: int | None = None


class Execute(NamedTuple):
    """Call one torch operation on objects of the worker.

    Args:
        operation: Name on the allow-list, such as ``torch.Tensor.add``.
        args: Positional arguments, with a `Ref` for each object of the worker.
        kwargs: Keyword arguments, likewise.
        result_ids: Identifiers for the tensors that result, in order; the worker draws its own beyond them.
        grad_enabled: The controller's gradient mode at the time of the call.
        round: Federated round, or None outside of rounds.
    """

    # A named tuple, as one is made per operation: it takes a fraction of a frozen dataclass's time.

    operation: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result_ids: tuple[int, ...]
    grad_enabled: bool = True
    round: int | None = None


@dataclass(frozen=True, slots=True)
class Backward:
    """Compute gradients from tensors of the worker; the answer is a `GradientPresence`.

    Args:
        tensors: Where to start.
        gradients: One per tensor, or None for scalars.
        retain_graph: As in `torch.autograd.backward`.
        create_graph: As in `torch.autograd.backward`.
        inputs: Leaves to accumulate into; all of them if None.
        round: Federated round, or None outside of rounds.
    """

    tensors: tuple[Ref, ...]
    gradients: tuple[Any, ...] | None = None
    retain_graph: bool | None = None
    create_graph: bool = False
    inputs: tuple[Ref, ...] | None = None
    round: int | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """Run a registered program at the worker.

    Args:
        program: Registered name, such as ``fedlightning.local.training:train_locally``.
        args: Positional arguments, with a `Ref` for each object of the worker.
        kwargs: Keyword arguments, likewise.
        keep: Whether the result stays at the worker, under ``result_id``.
        result_id: Identifier of the result that is kept.
        round: Federated round, or None outside of rounds.
    """

    program: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    keep: bool
    result_id: int
    round: int | None = None


@dataclass(frozen=True, slots=True)
class Get:
    """Ask for an object to leave the worker, which then holds it no longer."""

    object_id: int
    round: int | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """Hand an object over to another worker, which describes it; the first one then holds it no longer.

    Args:
        object_id: Identifier of the object.
        destination: Name of the other worker, which this one must reach directly.
        generation: The other worker's, so that a later one of its name gets nothing.
        result_id: Identifier that the object gets there.
        round: Federated round, or None outside of rounds.
    """

    object_id: int
    destination: str
    generation: int
    result_id: int
    round: int | None = None


@dataclass(frozen=True, slots=True)
class Recall:
    """Ask a worker that holds a pointer for the object itself to come there, in the pointer's place.

    The answer describes what the worker then holds.
    """

    object_id: int
    round: int | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Drop objects at the worker; identifiers that it does not hold are passed over."""

    object_ids: tuple[int, ...]
    round: int | None = None


@dataclass(frozen=True, slots=True)
class Clear:
    """Drop all objects at the worker except those that data owners registered."""

    round: int | None = None


@dataclass(frozen=True, slots=True)
class Tag:
    """Say what an object is called, or ask for it; the answer is an `ObjectDescription`.

    Args:
        object_id: Identifier of the object.
        tags: Words that `Search` finds it by, in place of those it had; None to keep them.
        description: Likewise.
        round: Federated round, or None outside of rounds.
    """

    object_id: int
    tags: tuple[str, ...] | None = None
    description: str | None = None
    round: int | None = None


@dataclass(frozen=True, slots=True)
class Search:
    """Ask which objects carry all of these tags; the answer is a tuple of descriptions."""

    tags: tuple[str, ...]
    round: int | None = None


@dataclass(frozen=True, slots=True)
class Describe:
    """Ask what is known of an object without moving it."""

    object_id: int
    round: int | None = None


Message: TypeAlias = (
    Put | Execute | Backward | Run | Get | Move | Recall | Delete | Clear | Tag | Search | Describe
)


class TensorDescription(NamedTuple):
    """Tell what a pointer knows of its tensor."""

    # A named tuple for the same reason as `Execute`.

    object_id: int
    shape: torch.Size
    stride: tuple[int, ...] | None
    storage_offset: int | None
    dtype: torch.dtype
    layout: torch.layout
    device: torch.device
    requires_grad: bool
    is_leaf: bool


@dataclass(frozen=True, slots=True)
class ObjectDescription:
    """Tell what a pointer knows of an object that is not a tensor."""

    object_id: int
    type_name: str
    tags: tuple[str, ...] = ()
    description: str = ""


@dataclass(frozen=True, slots=True)
class GradientPresence:
    """Answer `Backward`: the identifiers of all tensors of the worker that have a gradient now."""

    object_ids: frozenset[int]
