"""A worker inside this process, for simulation and for trying things out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor
from typing_extensions import override

from fedlightning.pointers.arguments import refer
from fedlightning.pointers.location import Location
from fedlightning.pointers.messages import Execute, Message, Put
from fedlightning.pointers.rounds import current_round
from fedlightning.pointers.tensor import PointerTensor
from fedlightning.workers.errors import WorkerError
from fedlightning.workers.handing_over import Arrival, Neighbour, take_over
from fedlightning.workers.host import Host
from fedlightning.workers.ledger import Ledger
from fedlightning.workers.loan import Loan
from fedlightning.workers.policy import AllowAll, Policy
from fedlightning.workers.reply import Done, Failed, Reply
from fedlightning.workers.worker import Capabilities, Worker

if TYPE_CHECKING:
    from fedlightning.workers.hook import TorchHook


_CAPABILITIES = Capabilities(fine_grained=True, ships_code=True)


class VirtualWorker(Worker):
    """Be a worker inside this process.

    Modules, data sets, optimizers and containers are sent and fetched without copying: the controller's
    memory is the worker's, and what is done to one is done to the other. Tensors are copied, as they would be
    on a wire: what is done to a pointer never changes the tensor that was sent.

    Making a second worker of the same name gives a new, empty one, so that a notebook's cell can be run
    again; the name then belongs to the new one, and the two cannot work together (see `check_unique_ids`).

    Args:
        hook: The hook that knows its workers by name, if there is one.
        id: Name of the worker.
        policy: What may leave it; everything, if none is given.

    Raises:
        ValueError: The name is empty.
        TypeError: The policy is none.

    Example:
        >>> import torch
        >>> bob = VirtualWorker(id="bob")
        >>> x = bob.send(torch.tensor([1.0, 2.0]), tags=("#toy",))
        >>> bob
        <VirtualWorker id:bob #objects:1>
        >>> bob.search("#toy")[0].sum().get()
        tensor(3.)
    """

    def __init__(self, hook: TorchHook | None = None, id: str = "", policy: Policy | None = None) -> None:
        super().__init__(
            id,
            capabilities=_CAPABILITIES,
            policy=AllowAll() if policy is None else policy,
        )
        self._host = Host(id, self.policy, Ledger(), self.generation)
        if hook is not None:
            hook.add_worker(self)

    @override
    def submit(self, message: Message) -> Reply:
        try:
            if type(message) is Execute:
                # No tensor comes with the ordinary message or goes with its answer, so there is none to copy.
                return Done(self._host.handle(message))
            return Done(self._deliver(message))
        except WorkerError as error:
            # Without the worker's own frames: their variables hold what was refused or withheld, and
            # notebooks and loggers print variables.
            return Failed(error.with_traceback(None))

    @property
    def lends(self) -> bool:
        """Whether `lend` does what messages would: nobody listens to them, and no data here is labelled."""
        return type(self).submit is VirtualWorker.submit and not self._host.labels.active

    def lend(self, loan: Loan, *args: Any) -> Any:
        """Run a program on objects of the controller's, which are here only as long as it runs.

        The same as sending them, running the program and getting them back, in the ledger too; but nothing is
        made for it: no messages, no pointers. Only a worker that `lends` does it.

        Args:
            loan: The program, with its first arguments.
            *args: Its other arguments, as for `run`.

        Returns:
            What the program returns.

        Raises:
            RemoteError: The program raised.
        """
        self.known_gradients.forget()
        try:
            answer = self._host.run_on_loan(loan, refer(args, self), current_round())
        except WorkerError as error:
            raise error.with_traceback(None)  # noqa: B904 - as in `submit`: its own frames must not be seen
        finally:
            self.known_gradients.forget()
        return copied(answer) if isinstance(answer, Tensor) else answer

    def _deliver(self, message: Message) -> Any:
        if type(message) is Put and isinstance(message.value, Tensor) and not message.private:
            message = replace(message, value=copied(message.value))
        answer = self._host.handle(message)
        return copied(answer) if isinstance(answer, Tensor) else answer

    @override
    def reaches(self, other: Location) -> bool:
        return isinstance(other, Neighbour)

    def take_over(self, value: Any, arrival: Arrival) -> Any:
        """Place an object that another worker of this process has let out, and describe it."""
        return take_over(self._host, copied(value) if isinstance(value, Tensor) else value, arrival)

    @override
    def release(self, object_id: int) -> None:
        # In process there is nothing to wait for, and dropping from a dict takes no lock.
        self._host.release(object_id)

    @property
    def _objects(self) -> dict[int, Any]:
        return dict(self._host.store.objects)

    @property
    @override
    def ledger(self) -> Ledger:
        return self._host.ledger

    @override
    def __len__(self) -> int:
        return len(self._host.store.objects)

    def __repr__(self) -> str:
        return f"<VirtualWorker id:{self.id} #objects:{len(self)}>"


def copied(tensor: Tensor) -> Tensor:
    """Copy a tensor as a wire would: values, gradient, and whether it requires one; not its graph.

    Args:
        tensor: Any tensor.

    Returns:
        A leaf that shares no memory with it; a pointer as it is.
    """
    if isinstance(tensor, PointerTensor):
        # A name: the one who gets it owns what it leads to.
        return tensor
    copy = tensor.detach().clone()
    copy.requires_grad_(tensor.requires_grad)
    if tensor.is_leaf and tensor.grad is not None:
        copy.grad = tensor.grad.detach().clone()
    return copy
