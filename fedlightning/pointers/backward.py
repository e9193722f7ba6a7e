"""Gradients at a worker: one message computes them, and its answer tells which tensors have one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fedlightning.pointers.arguments import handle_of, refer
from fedlightning.pointers.errors import MixedLocationsError
from fedlightning.pointers.messages import Backward
from fedlightning.pointers.rounds import current_round


def run_backward(
    tensors: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    retain_graph: bool | None,
    create_graph: bool,
    inputs: Any,
) -> None:
    """Compute gradients from tensors of one worker.

    Args:
        tensors: Pointers where to start; all to one worker.
        gradients: A pointer for each that is not a scalar.
        retain_graph: As in `torch.autograd.backward`.
        create_graph: As in `torch.autograd.backward`.
        inputs: Pointers to leaves, one or several; all leaves if None.

    Raises:
        MixedLocationsError: A gradient is local, or something is at another worker.
    """
    location = next(handle.location for tensor in tensors if (handle := handle_of(tensor)))
    chosen = (inputs,) if isinstance(inputs, Tensor) else inputs
    for value in (*tensors, *gradients, *(chosen or ())):
        _check_remote(value, location.id)
    message = Backward(
        tuple(refer(tensor, location) for tensor in tensors),
        tuple(refer(gradient, location) for gradient in gradients),
        retain_graph,
        create_graph,
        None if chosen is None else tuple(refer(leaf, location) for leaf in chosen),
        current_round(),
    )
    known = location.known_gradients
    with known.changing() as change:
        answer = location.submit(message)
    if location.pipelining:
        known.expect(change, answer)
    else:
        known.learn(change, answer)


def _check_remote(value: Any, place: str) -> None:
    if value is not None and handle_of(value) is None and value.dim() > 0:
        raise MixedLocationsError(
            f"backward at {place!r} got a local tensor of shape {tuple(value.shape)}: send it there first"
        )
