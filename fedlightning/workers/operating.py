"""What a worker does with one torch operation: look it up, run it, keep the tensors, describe them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fedlightning.pointers.ids import new_id
from fedlightning.pointers.messages import Execute, Ref
from fedlightning.pointers.operations import METADATA_AT_WORKER, OPERATIONS
from fedlightning.workers.errors import RefusedByPolicy, RemoteError
from fedlightning.workers.policy import EgressKind
from fedlightning.workers.store import DERIVED, describe_tensor

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
    function = OPERATIONS.get(message.operation)
    if function is None:
        remedy = "Use a torch function that is offered, or a registered program."
        raise RefusedByPolicy(
            host.worker_id, message.operation, "it is no operation on the allow-list", remedy
        )
    resolve = host.store.resolve
    args = [resolve(value) for value in message.args]
    kwargs = {key: resolve(value) for key, value in message.kwargs.items()} if message.kwargs else {}
    try:
        if message.grad_enabled is torch.is_grad_enabled():
            result = function(*args, **kwargs)
        else:
            with torch.set_grad_enabled(message.grad_enabled):
                result = function(*args, **kwargs)
    except Exception as error:
        raise RemoteError(host.worker_id, message.operation, error) from error
    if type(result) is Tensor and _is_new_and_public(host, result, args, kwargs):
        object_id = message.result_ids[0]
        host.store.put(object_id, result)
        return describe_tensor(result, object_id)
    return _Result(host, message).answer(result)


def _is_new_and_public(host: Host, result: Tensor, args: list[Any], kwargs: dict[str, Any]) -> bool:
    """Tell whether a result needs no second look: the ordinary case, worth being quick."""
    if kwargs or host.store.labels:
        return False
    return not any(value is result or type(value) is list for value in args)


class _Result:
    """Keep the tensors of one operation's result and describe them."""

    __slots__ = ("_host", "_ids", "_message", "_private", "_used")

    def __init__(self, host: Host, message: Execute) -> None:
        self._host = host
        self._message = message
        self._ids = message.result_ids
        self._used = 0
        self._private = bool(host.store.labels) and host.store.any_private((message.args, message.kwargs))

    def answer(self, result: Any) -> Any:
        """Replace each tensor, however deep, by its description."""
        if isinstance(result, Tensor):
            object_id = self._argument(result)
            if object_id is None:
                object_id = self._keep(result)
            if self._private:
                self._host.store.labels[object_id] = DERIVED
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
            kind, result, private=self._private, program=self._message.operation, round=self._message.round
        )


def _references(value: Any) -> list[Ref]:
    found = []
    for item in value:
        if type(item) is Ref:
            found.append(item)
        elif isinstance(item, (list, tuple)):
            found.extend(_references(item))
    return found
