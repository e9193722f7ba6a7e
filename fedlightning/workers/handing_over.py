"""What a worker does about other workers: hand an object over, take one in, fetch what a pointer leads to.

Whether something may leave for another worker is for the policies, which `Host.let_object_out` asks; labels
go along, and with them the policies of the data's owners.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch import Tensor

from fedlightning.pointers.arguments import handle_of
from fedlightning.pointers.errors import PointerError
from fedlightning.pointers.location import find_place
from fedlightning.pointers.lost_gradients import refuse_gradient
from fedlightning.pointers.messages import Move, Recall
from fedlightning.pointers.tensor import PointerTensor
from fedlightning.workers.errors import RefusedByPolicy
from fedlightning.workers.payload import payload_bytes
from fedlightning.workers.policy import Label
from fedlightning.workers.store import Card, Held

if TYPE_CHECKING:
    from fedlightning.workers.host import Host


@payload_bytes.register
def _(value: PointerTensor) -> int:
    # A name; what it leads to stays where it is.
    return 0


@runtime_checkable
class Neighbour(Protocol):
    """Be a worker to which others hand objects directly."""

    def take_over(self, value: Any, arrival: Arrival) -> Any:
        """Place an object that another worker has let out, and describe it."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """Say what comes along with an object from another worker.

    Args:
        object_id: Identifier that it gets.
        label: Whose data it was computed from.
        card: What it is called.
        registered: Whether it is a data owner's and stays until it is fetched or deleted.
        round: Federated round, or None outside of rounds.
    """

    object_id: int
    label: Label
    card: Card
    registered: bool
    round: int | None


def hand_over(host: Host, message: Move) -> Any:
    """Let an object leave for another worker.

    Raises:
        PointerError: The worker is not reached from here, or a later one of its name is.
        RefusedByPolicy: The object may not go there; it stays.
    """
    neighbour = find_place(message.destination, message.generation)
    if not isinstance(neighbour, Neighbour):
        raise PointerError(f"worker {host.worker_id!r} does not reach {message.destination!r} directly")
    held, card = host.store.get(message.object_id), host.store.card(message.object_id)
    value, label = host.let_object_out(message.object_id, message.round, to=message.destination)
    registered = message.object_id in host.store.registered
    arrival = Arrival(message.result_id, label, card, registered, message.round)
    description = neighbour.take_over(value, arrival)
    if isinstance(held, Tensor):
        refuse_gradient(held, f"was moved to {message.destination!r}")
    host.release(message.object_id)
    return description


def take_over(host: Host, value: Any, arrival: Arrival) -> Any:
    """Place an object that another worker has let out.

    Args:
        host: The host of the worker that gets it.
        value: The object, its own from now on.
        arrival: What comes along.

    Returns:
        Its description.
    """
    item = arrival.card.description or type(value).__name__
    host.ledger.receive(item, payload_bytes(value), arrival.round, host.worker_id)
    description = host.take_in(arrival.object_id, value, arrival.label, arrival.card)
    if arrival.label and isinstance(value, Tensor) and handle_of(value) is None:
        host.labels.add_to_gradients([value], arrival.label)
    if arrival.registered:
        host.store.registered.add(arrival.object_id)
    return description


def recall(host: Host, message: Recall) -> Any:
    """Fetch what a pointer leads to that this worker holds, in the pointer's place.

    Raises:
        PointerError: It is no pointer.
        RefusedByPolicy: The object may not come here; the pointer stays.
    """
    pointer, card = host.store.get(message.object_id), host.store.card(message.object_id)
    handle = handle_of(pointer)
    if handle is None:
        raise PointerError(
            f"object {message.object_id} is at {host.worker_id!r} itself, not behind a pointer"
        )
    host.store.drop(message.object_id)
    try:
        handle.location.submit(
            Move(handle.use().object_id, host.worker_id, host.generation, message.object_id, message.round)
        ).wait()
    except RuntimeError:
        host.store.put(message.object_id, pointer, card)
        raise
    handle.retire(f"was fetched by {host.worker_id!r}")
    return host.store.describe(message.object_id)


def refuse_mixture(host: Host, action: str, found: Iterable[Held]) -> None:
    """Refuse to compute with private data and a pointer at once: single values would go where it leads.

    Args:
        host: The host.
        action: What is to be done with them.
        found: The worker's objects, of which some are private.

    Raises:
        RefusedByPolicy: One of them is a pointer.
    """
    # Pointers are not sent inside other objects: each that there is has been found.
    for _, value in found:
        if (handle := handle_of(value)) is not None:
            remedy = "Bring the other one here first, with .remote_get() or .move(...)."
            raise RefusedByPolicy(
                host.worker_id,
                f"{action} on private data together with a pointer to {handle.location.id!r}",
                "private data goes to other workers only by .move(...)",
                remedy,
            )
