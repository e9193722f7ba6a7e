"""What a worker does with one torch operation: look it up, run it, keep the tensors, describe them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fedlightning.pointers.ids import new_id
from fedlightning.pointers.messages import Execute, Ref
from fedlightning.pointers.operations import METADATA_AT_WORKER
from fedlightning.workers.blank_memory import WORKER_OPERATIONS
from fedlightning.workers.errors import RefusedByPolicy, WorkerError
from fedlightning.workers.policy import PUBLIC, EgressKind, Label
from fedlightning.workers.store import describe_tensor
from fedlightning.workers.tracking import Tracking

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
    resolve = host.store.resolve
    args = [resolve(value) for value in message.args]
    kwargs = {key: resolve(value) for key, value in message.kwargs.items()} if message.kwargs else {}
    if host.labels.active:
        label = host.labels.of_operands(message.args, args)
        if kwargs:
            label |= host.labels.of_operands(message.kwargs.values(), kwargs.values())
        if label:
            return _run_on_private(host, message, function, args, kwargs, label)
    try:
        result = _call(message, function, args, kwargs)
    except Exception as error:
        raise host.failure(message.operation, error) from error
    if type(result) is Tensor and _is_new(result, args, kwargs):
        object_id = message.result_ids[0]
        host.store.put(object_id, result)
        return describe_tensor(result, object_id)
    return _Result(host, message).answer(result)


def _call(message: Execute, function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
    if message.grad_enabled is torch.is_grad_enabled():
        return function(*args, **kwargs)
    with torch.set_grad_enabled(message.grad_enabled):
        return function(*args, **kwargs)


def _is_new(result: Tensor, args: list[Any], kwargs: dict[str, Any]) -> bool:
    """Tell whether a result needs no second look: the ordinary case, worth being quick."""
    return not kwargs and not any(value is result or type(value) in _SEQUENCES for value in args)


_SEQUENCES = (list, tuple)


def _run_on_private(
    host: Host,
    message: Execute,
    function: Callable[..., Any],
    args: list[Any],
    kwargs: dict[str, Any],
    label: Label,
) -> Any:
    def reveal(kernel: str) -> None:
        host.let_out(
            "data",
            None,
            sources=label,
            program=f"{message.operation}'s shape ({kernel})",
            round=message.round,
        )

    tracking = Tracking(host.labels, label, message.operation, (args, kwargs), reveal)
    try:
        result = tracking.run(lambda: _call(message, function, args, kwargs))
    except WorkerError:
        raise
    except Exception as error:  # noqa: BLE001  # raised again, as what the controller may know of it
        failure = host.failure(message.operation, error, sources=label, round=message.round)
        raise failure from failure.__cause__
    return _Result(host, message, label, tracking).answer(result)


class _Result:
    """Keep the tensors of one operation's result and describe them."""

    __slots__ = ("_host", "_ids", "_label", "_message", "_tracking", "_used")

    def __init__(
        self, host: Host, message: Execute, label: Label = PUBLIC, tracking: Tracking | None = None
    ) -> None:
        self._host = host
        self._message = message
        self._ids = message.result_ids
        self._used = 0
        self._label = label
        self._tracking = tracking
        for reference in (*_references(message.args), *_references(list(message.kwargs.values()))):
            # An operation given a list of tensors could return one of them, and so share it unseen.
            if not isinstance(held := host.store.get(reference.object_id), Tensor):
                subject = f"{message.operation} on object {reference.object_id}, a {type(held).__name__}"
                remedy = "Operations are for tensors; run a program on it."
                raise RefusedByPolicy(host.worker_id, subject, "it is no tensor", remedy)

    def answer(self, result: Any) -> Any:
        """Replace each tensor, however deep, by its description."""
        if isinstance(result, Tensor):
            object_id = self._argument(result)
            if object_id is None:
                object_id = self._keep(result)
            if self._tracking is not None:
                self._host.labels.add(object_id, result, self._tracking.label_of_result(result))
            return describe_tensor(result, object_id)
        if isinstance(result, tuple) and not isinstance(result, torch.Size):
            items = [self.answer(item) for item in result]
            return type(result)(*items) if hasattr(result, "_fields") else type(result)(items)
        if isinstance(result, list):
            return [self.answer(item) for item in result]
        if result is not None:
            self._let_out(result)
        return result

    def _argument(self, result: Tensor) -> int | None:
        """Return the identifier of the argument that the result is, as for operations in place."""
        objects = self._host.store.objects
        for value in _references(self._message.args):
            if objects.get(value.object_id) is result:
                return value.object_id
        for value in _references(list(self._message.kwargs.values())):
            if objects.get(value.object_id) is result:
                return value.object_id
        return None

    def _keep(self, result: Tensor) -> int:
        object_id = self._ids[self._used] if self._used < len(self._ids) else new_id()
        self._used += 1
        self._host.store.put(object_id, result)
        return object_id

    def _let_out(self, result: Any) -> None:
        kind: EgressKind = "metadata" if self._message.operation in METADATA_AT_WORKER else "data"
        self._host.let_out(
            kind, result, sources=self._label, program=self._message.operation, round=self._message.round
        )


def _references(value: Any) -> list[Ref]:
    found = []
    for item in value:
        if type(item) is Ref:
            found.append(item)
        elif isinstance(item, (list, tuple)):
            found.extend(_references(item))
    return found
