"""What a worker does with one torch operation: look it up, run it, keep the tensors, describe them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fedlightning.pointers.ids import new_id
from fedlightning.pointers.messages import Execute, TensorDescription
from fedlightning.pointers.operations import METADATA_AT_WORKER
from fedlightning.workers.blank_memory import WORKER_OPERATIONS
from fedlightning.workers.errors import RefusedByPolicy, WorkerError
from fedlightning.workers.handing_over import refuse_mixture
from fedlightning.workers.policy import PUBLIC, EgressKind, Label, ResultShape
from fedlightning.workers.store import Held, describe_tensor
from fedlightning.workers.tracking import GRADIENTS, Tracking

if TYPE_CHECKING:
    from fedlightning.workers.host import Host


def run_operation(host: Host, message: Execute) -> Any:
    """Run one operation on a host's objects.

    Args:
        host: The worker's host.
        message: The operation.

    Returns:
        What the operation returns, with a description for each tensor.

    Raises:
        RefusedByPolicy: The operation is not on the allow-list, or a value that it returns may not leave.
        RemoteError: The operation raised.
    """
    function = WORKER_OPERATIONS.get(message.operation)
    if function is None:
        remedy = "Use a torch function that is offered, or a registered program."
        raise RefusedByPolicy(
            host.worker_id, message.operation, "it is no operation on the allow-list", remedy
        )
    found: list[Held] = []
    args = host.store.resolve_each(message.args, found)
    kwargs = host.store.resolve(message.kwargs, found) if message.kwargs else {}
    for object_id, held in found:
        if not isinstance(held, Tensor):
            raise _no_tensor(host, message, object_id, held)
    if host.labels.active and (label := _label_of(host, message, found)):
        refuse_mixture(host, message.operation, found)
        return _run_on_private(host, message, partial(_call, message, function, args, kwargs), found, label)
    try:
        result = _call(message, function, args, kwargs)
    except WorkerError:
        # From further away: what was asked for ran through a pointer that this worker holds.
        raise
    except Exception as error:
        raise host.failure(message.operation, error) from error
    if type(result) is not Tensor:
        return _answer(host, message, found, result)
    # The ordinary case, worth being quick.
    own_id = _identifier_of(result, found)
    if own_id is None:
        own_id = message.result_ids[0]
        host.store.put(own_id, result)
    return describe_tensor(result, own_id)


def _call(message: Execute, function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
    if message.grad_enabled is torch.is_grad_enabled():
        return function(*args, **kwargs)
    with torch.set_grad_enabled(message.grad_enabled):
        return function(*args, **kwargs)


def _no_tensor(host: Host, message: Execute, object_id: int, held: Any) -> RefusedByPolicy:
    # An operation given a list of tensors could return one of them, and so share it unseen.
    subject = f"{message.operation} on object {object_id}, a {type(held).__name__}"
    remedy = "Operations are for tensors; run a program on it."
    return RefusedByPolicy(host.worker_id, subject, "it is no tensor", remedy)


def _label_of(host: Host, message: Execute, found: list[Held]) -> Label:
    label = host.labels.of_operands(found)
    if message.operation in GRADIENTS:
        for _, tensor in found:
            label |= host.labels.of_gradient(tensor)
    return label


def _run_on_private(host: Host, message: Execute, call: partial[Any], found: list[Held], label: Label) -> Any:
    operation, round = message.operation, message.round

    def reveal(kernel: str) -> None:
        shape = ResultShape(operation, kernel)
        host.let_out("data", shape, sources=label, program=f"{operation}, shape", round=round)

    # Through its arguments, the call leads to all operands, those that were sent along too.
    tracking = Tracking(host.labels, label, operation, call.args, reveal)
    try:
        result = tracking.run(call)
    except WorkerError:
        raise
    except Exception as error:  # noqa: BLE001  # raised again, as what the controller may know of it
        failure = host.failure(operation, error, sources=label, round=round)
        raise failure from failure.__cause__
    return _answer(host, message, found, result, tracking)


def _answer(
    host: Host, message: Execute, found: list[Held], result: Any, tracking: Tracking | None = None
) -> Any:
    """Keep the tensors of a result, let its plain values out, and return it with descriptions for tensors."""
    operation, label = message.operation, PUBLIC if tracking is None else tracking.label
    kind: EgressKind = "metadata" if operation in METADATA_AT_WORKER else "data"
    # Before anything is kept: a refusal leaves no tensor behind that nobody points to.
    for value in _plain_values(result):
        host.let_out(kind, value, sources=label, program=operation, round=message.round)
    identifiers = iter(message.result_ids)

    def keep(tensor: Tensor) -> TensorDescription:
        # What operations in place return is an argument.
        object_id = _identifier_of(tensor, found)
        if object_id is None:
            object_id = next(identifiers, None) or new_id()
            host.store.put(object_id, tensor)
        if tracking is not None:
            host.labels.add(object_id, tensor, tracking.label_of_result(tensor))
        return describe_tensor(tensor, object_id)

    return _with_each(keep, result)


def _identifier_of(tensor: Tensor, found: list[Held]) -> int | None:
    for object_id, held in found:
        if held is tensor:
            return object_id
    return None


def _with_each(keep: Callable[[Tensor], TensorDescription], result: Any) -> Any:
    """Replace each tensor, however deep in tuples and lists."""
    if isinstance(result, Tensor):
        return keep(result)
    if isinstance(result, tuple) and not isinstance(result, torch.Size):
        items = [_with_each(keep, item) for item in result]
        return type(result)(*items) if hasattr(result, "_fields") else type(result)(items)
    if isinstance(result, list):
        return [_with_each(keep, item) for item in result]
    return result


def _plain_values(result: Any) -> Iterator[Any]:
    if isinstance(result, list) or (isinstance(result, tuple) and not isinstance(result, torch.Size)):
        for item in result:
            yield from _plain_values(item)
    elif result is not None and not isinstance(result, Tensor):
        yield result
