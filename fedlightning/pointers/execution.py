"""Turn one torch call on pointers into one message, and its answer into pointers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.utils._pytree import tree_leaves

from fedlightning.pointers.checkpointing import reraise_stop
from fedlightning.pointers.errors import MixedLocationsError, PointerError
from fedlightning.pointers.ids import new_id
from fedlightning.pointers.location import Location, controller
from fedlightning.pointers.messages import Execute, Ref, TensorDescription
from fedlightning.pointers.operations import OPERATIONS
from fedlightning.pointers.promises import changes_its_first_argument, gives_one_tensor
from fedlightning.pointers.rounds import current_round

if TYPE_CHECKING:
    from fedlightning.pointers.tensor import PointerTensor

# Local tensors may serve as positions in these, as an index on the CPU does for a tensor on another device.
_INDEXING = frozenset(
    {
        "torch.Tensor.__getitem__",
        "torch.Tensor.__setitem__",
        "torch.Tensor.index_put",
        "torch.Tensor.index_put_",
        "torch.index_put",
        "torch.index_put_",
        "torch._VF._pack_padded_sequence",
        "torch.ops.aten.index",
    }
)
# And their values may be sent along in these, which is how data crosses devices.
_COPYING = frozenset({"torch.Tensor.copy_"})
_INDEX_TYPES = frozenset({torch.bool, torch.uint8, torch.int16, torch.int32, torch.int64})
_PLAIN = frozenset({int, float, bool, str, complex, type(None), torch.dtype, torch.device, torch.Size})


class Arguments:
    """Collect the arguments of one call, with references for pointers.

    Args:
        operation: Name of the operation, for its rules on local tensors and for errors.
        location: The worker, where it is known before any pointer is seen.
    """

    __slots__ = ("local", "location", "operation")

    def __init__(self, operation: str, location: Location | None = None) -> None:
        self.operation = operation
        self.location = location
        self.local: list[Tensor] = []  # the tensors among them that are not pointers

    def refer(self, value: Any) -> Any:
        """Replace pointers in a value, however deep, by references."""
        if hasattr(value, "_handle") and isinstance(value, Tensor):
            return self._refer_pointer(value)
        if isinstance(value, Tensor):
            self.local.append(value)
            return value
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(self.refer, value))
        if isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
            return (list if isinstance(value, list) else tuple)(map(self.refer, value))
        if isinstance(value, dict):
            return {key: self.refer(item) for key, item in value.items()}
        if isinstance(value, slice):
            return slice(self.refer(value.start), self.refer(value.stop), self.refer(value.step))
        return value

    def check_local_tensors(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Refuse local tensors that may not be sent along.

        Raises:
            MixedLocationsError: One is there that is neither 0-dimensional nor an index.
        """
        writes = self.operation.endswith("_") and not self.operation.endswith("__")
        targets = tree_leaves([kwargs.get("out"), args[0] if writes and args else None])
        for tensor in self.local:
            if any(tensor is target for target in targets) or not self._may_travel(tensor):
                raise MixedLocationsError(self._mixture(tensor))

    def _refer_pointer(self, pointer: Any) -> Ref:
        handle = pointer._handle
        if self.location is None:
            self.location = handle.location
        elif handle.location is not self.location:
            raise MixedLocationsError(two_places(self.operation, self.location, handle.location))
        return handle.use()  # type: ignore[no-any-return]  # the handle of a pointer, seen from below

    def _may_travel(self, tensor: Tensor) -> bool:
        if tensor.requires_grad and torch.is_grad_enabled():
            return False
        is_index = self.operation in _INDEXING and tensor.dtype in _INDEX_TYPES
        return tensor.dim() == 0 or is_index or self.operation in _COPYING

    def _mixture(self, tensor: Tensor) -> str:
        here, there = controller().id, self.location.id if self.location else "?"
        return (
            f"{self.operation} mixes a local tensor of {tuple(tensor.shape)} at {here!r} with a pointer "
            f"to {there!r}: send the local one there with .send({there}), or bring the other here with .get()"
        )


def two_places(operation: str, first: Location, second: Location) -> str:
    """Say that an operation was asked of two workers, and what to do."""
    if first.id == second.id:
        return (
            f"{operation} is asked of two workers, both named {first.id!r} (generations {first.generation} "
            f"and {second.generation}): the worker was made again, so send the tensors again"
        )
    return (
        f"{operation} is asked of tensors at two workers, {first.id!r} and {second.id!r}: "
        f"bring them together first, for example with .move({first.id})"
    )


def execute(
    cls: type[PointerTensor],
    operation: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    location: Location | None = None,
    one_tensor: bool = False,
) -> Any:
    """Run one operation where its pointers lead, by one message.

    Args:
        cls: The class of the pointers.
        operation: Name on the allow-list.
        args: As for the torch function; pointers may be deep in lists and tuples.
        kwargs: Likewise.
        location: The worker, if no pointer among the arguments tells it.
        one_tensor: Whether the result is known to be one tensor, which the operation's name does not tell.

    Returns:
        What the torch function returns, with pointers for tensors. An argument that the operation returns, as
        in-place ones do, is the same pointer, with its metadata refreshed.

    Raises:
        MixedLocationsError: The arguments are in different places.
        StalePointerError: An argument has left its worker.
        RemoteError: The operation raised at the worker.
    """
    flat = _refer_flat(cls, operation, args, kwargs) if location is None else None
    if flat is not None:
        place, sent_args, sent_kwargs = flat
    else:
        arguments = Arguments(operation, location)
        sent_args = tuple(map(arguments.refer, args))
        sent_kwargs = {key: arguments.refer(value) for key, value in kwargs.items()}
        if arguments.local:
            if any(map(is_functorch_wrapped_tensor, arguments.local)):
                return _run_below(operation, args, kwargs)
            arguments.check_local_tensors(args, kwargs)
        if arguments.location is None:
            raise PointerError(f"{operation} was given no pointer")
        place = arguments.location
    result_id = new_id()
    message = Execute(
        operation, sent_args, sent_kwargs, (result_id,), torch.is_grad_enabled(), current_round()
    )
    try:
        if place.pipelining and (one_tensor or gives_one_tensor(operation)) and "out" not in kwargs:
            return _promise(cls, place, message, args)
        answer = place.submit(message).wait()
    except Exception as error:
        reraise_stop(error)
        raise
    if type(answer) is TensorDescription and answer.object_id == result_id:
        # The ordinary case, worth being quick.
        return cls.point(place, answer)
    return _receive(cls, place, answer, (args, kwargs))


def _promise(
    cls: type[PointerTensor], place: Location, message: Execute, args: tuple[Any, ...]
) -> PointerTensor:
    """Send an operation without waiting for its answer, and point to what will be there."""
    answer = place.submit(message)
    if changes_its_first_argument(message.operation) and type(args[0]) is cls:
        return args[0].expect(answer)
    return cls.promise(place, message.result_ids[0], answer)


def _run_below(operation: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Let `torch.func` unwrap what it has wrapped; its operations come back by way of the net."""
    with torch._C.DisableTorchFunctionSubclass():
        return OPERATIONS[operation](*args, **kwargs)


def _refer_flat(
    cls: type[PointerTensor], operation: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Location, tuple[Any, ...], dict[str, Any]] | None:
    """Replace pointers in plain arguments that begin with one; None if they need the general way.

    Most calls are like this, and their overhead is what an operation on small tensors costs.

    Returns:
        The worker, and the arguments for it.
    """
    if not args or type(args[0]) is not cls:
        return None
    place, sent = args[0]._handle.location, []
    for value in (*args, *kwargs.values()) if kwargs else args:
        kind = type(value)
        if kind is cls:
            handle = value._handle
            if handle.location is not place:
                raise MixedLocationsError(two_places(operation, place, handle.location))
            sent.append(handle.use() if handle.gone else handle.ref)
        elif kind in _PLAIN or (kind is tuple and _PLAIN.issuperset(map(type, value))):
            sent.append(value)
        else:
            return None
    if not kwargs:
        return place, tuple(sent), kwargs
    count = len(args)
    return place, tuple(sent[:count]), dict(zip(kwargs, sent[count:], strict=True))


def _receive(cls: type[PointerTensor], place: Location, answer: Any, arguments: Any) -> Any:
    """Turn descriptions of tensors, however deep in an answer, into pointers."""
    if type(answer) is TensorDescription:
        known = _pointer_to(cls, answer.object_id, arguments)
        return cls.point(place, answer) if known is None else known.refresh(answer)
    if isinstance(answer, tuple) and not isinstance(answer, torch.Size):
        items = [_receive(cls, place, item, arguments) for item in answer]
        return type(answer)(*items) if hasattr(answer, "_fields") else type(answer)(items)
    if isinstance(answer, list):
        return [_receive(cls, place, item, arguments) for item in answer]
    return answer


def _pointer_to(cls: type[PointerTensor], object_id: int, value: Any) -> PointerTensor | None:
    """Find the argument that an operation has returned, as operations in place do."""
    if type(value) is cls:
        return value if value._handle.ref.object_id == object_id else None
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            pointer = _pointer_to(cls, object_id, item)
            if pointer is not None:
                return pointer
    return None
