"""The way down, compressed: workers get what has changed of the global model since they were last visited.

How a chain of postprocessors works is in ``chain``; when who is sent what, in the strategy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from fedlightning.algorithms.postprocessing.base import Memo
from fedlightning.algorithms.postprocessing.chain import Postprocessing
from fedlightning.local.procedure import LocalProcedure, LocalTraining
from fedlightning.local.randomness import own_randomness
from fedlightning.local.wrapping import WrappedProcedure
from fedlightning.workers.payload import payload_bytes
from fedlightning.workers.remote import record

Change = dict[str, list[Tensor]]
"""What a chain has made of the way from one broadcast model to the next."""


class Downlink:
    """Be the server's end: the model that all workers can know, and the changes that lead to it.

    In each round the way from the last broadcast model to the global one is encoded, and what it decodes to
    is the next broadcast model, from which everybody starts. What is lost on the way is thus in the next
    round's way again: that is error feedback at the server (Tang et al. 2019, "DoubleSqueeze", Algorithm 1).
    A worker gets all changes since its last visit (Sattler et al. 2019, section V), or the whole model where
    that is less.

    Args:
        chain: The postprocessors, without error feedback of their own.

    Example:
        >>> from fedlightning.algorithms.postprocessing import TopK
        >>> downlink = Downlink(Postprocessing([TopK(fraction=0.5)]))
        >>> downlink.broadcast([torch.tensor([1.0, 2.0])], round=0, seed=0)  # as a whole, at first
        [tensor([1., 2.])]
        >>> downlink.broadcast([torch.tensor([1.5, 9.0])], round=1, seed=1)
        [tensor([1., 9.])]
        >>> downlink.broadcast([torch.tensor([1.5, 9.1])], round=2, seed=2)
        [tensor([1.5000, 9.0000])]
    """

    def __init__(self, chain: Postprocessing) -> None:
        self._chain = chain
        self._memo = Memo()
        self._model: list[Tensor] = []
        self._round = -1
        self._changes: dict[int, Change] = {}
        self._version = 0
        self._versions: dict[str, int] = {}

    def broadcast(self, parameters: Sequence[Tensor], *, round: int, seed: int) -> list[Tensor]:
        """Return the model that a round starts from; asked again within a round, the same.

        Args:
            parameters: The global parameters; not kept.
            round: Number of the round.
            seed: Of what the chain draws.
        """
        if round != self._round:
            with torch.no_grad(), own_randomness(seed):
                self._advance(parameters)
            self._round = round
        return self._model

    def _advance(self, parameters: Sequence[Tensor]) -> None:
        if not self._model:
            self._model = [tensor.detach().clone() for tensor in parameters]
            return
        way = [now - known for now, known in zip(parameters, self._model, strict=True)]
        self._changes[self._version] = change = self._chain.encode(way, self._memo)
        self._version += 1
        self._model = moved(self._model, change, self._chain)
        self._forget()

    def _forget(self) -> None:
        """Drop the changes that nobody will be sent, because the whole model is less."""
        size, whole = 0, payload_bytes(self._model)
        for version in sorted(self._changes, reverse=True):
            size += payload_bytes(self._changes[version])
            if size >= whole:
                del self._changes[version]

    def to(self, worker: str, procedure: LocalProcedure | None) -> ReceivedTraining:
        """Return what a worker does in the round, with what it needs to know the broadcast model.

        Args:
            worker: Its name.
            procedure: What it does from there.
        """
        since = self._versions.get(worker, -1)
        missed = range(since, self._version)
        if since >= 0 and all(version in self._changes for version in missed):
            changes = [self._changes[version] for version in missed]
            return ReceivedTraining(self._chain, [], since, changes, procedure)
        return ReceivedTraining(self._chain, self._model, self._version, [], procedure)

    def delivered(self, worker: str) -> None:
        """Note that a worker has got what the round sends it."""
        self._versions[worker] = self._version

    def state_dict(self) -> dict[str, Any]:
        """Return all that decides the rounds to come, as tensors and plain values."""
        return {
            "model": self._model,
            "changes": self._changes,
            "version": self._version,
            "versions": dict(self._versions),
            "kept": self._memo.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state."""
        self._model = list(state["model"])
        self._changes = dict(state["changes"])
        self._version = state["version"]
        self._versions = dict(state["versions"])
        self._memo.load_state_dict(state["kept"])


@record
@dataclass(frozen=True)
class ReceivedTraining(WrappedProcedure):
    """Put the broadcast model together, and go on from there.

    Args:
        chain: How changes were encoded.
        whole: The model itself; empty where changes will do.
        version: Number of the first change, or of the whole model.
        changes: What has changed since an earlier visit.
        procedure: What is done then; ``None`` to train.
    """

    chain: Postprocessing
    whole: list[Tensor]
    version: int
    changes: list[Change]
    procedure: LocalProcedure | None

    @override
    def run(self, local: LocalTraining) -> None:
        model = self.whole or self._caught_up(local)
        _take_over(local.parameters, model)
        local.keep("broadcast", [tensor.clone() for tensor in model])
        local.keep("broadcast version", [torch.tensor(self.version + len(self.changes))])
        self.carry_out(local)

    def _caught_up(self, local: LocalTraining) -> list[Tensor]:
        """Return the worker's copy of the model, moved along the changes that it has not seen yet."""
        model, version = local.kept("broadcast"), local.kept("broadcast version")
        if model is None or version is None:
            raise RuntimeError(
                "the worker was sent changes of the global model, and has no model that they belong to: it "
                "has lost what it kept. Start the fit again, from a checkpoint."
            )
        # After a visit that failed in between, it may have seen some of them.
        for change in self.changes[int(version[0]) - self.version :]:
            model = moved(model, change, self.chain)
        return model


@torch.no_grad()
def moved(model: Sequence[Tensor], change: Change, chain: Postprocessing) -> list[Tensor]:
    """Return a model moved along a change; the same bits at the server and at every worker.

    Args:
        model: Its parameters.
        change: What the chain has encoded.
        chain: Decodes it.
    """
    way = chain.decode(change, [tuple(tensor.shape) for tensor in model])
    return [tensor + step.to(tensor.dtype) for tensor, step in zip(model, way, strict=True)]


@torch.no_grad()
def _take_over(parameters: Sequence[Tensor], model: Sequence[Tensor]) -> None:
    for parameter, tensor in zip(parameters, model, strict=True):
        if parameter.shape == tensor.shape:
            parameter.copy_(tensor)
        else:  # it has come without its values
            parameter.data = tensor.to(parameter.device, copy=True)
