"""MOON: local representations are drawn to the global model's, and away from the worker's last ones.

Li, He and Song 2021, "Model-Contrastive Federated Learning", Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, softplus
from torch.utils._pytree import tree_leaves
from typing_extensions import override

from fedlightning.algorithms.algorithm import Algorithm, Job, ServerState, loss_is_not_told
from fedlightning.algorithms.fedper import unmatched
from fedlightning.algorithms.numbers import require_at_least
from fedlightning.algorithms.plan import Plan
from fedlightning.local.procedure import LocalProcedure, LocalTraining
from fedlightning.workers.remote import record


@dataclass(frozen=True)
class Moon(Algorithm):
    """Add ``mu`` times a contrast of representations to every worker's loss.

    For a sample with representation ``z`` by the local model, ``z_glob`` by the round's global model and
    ``z_prev`` by the model of this worker's last visit, it is
    ``-log(exp(sim(z, z_glob) / t) / (exp(sim(z, z_glob) / t) + exp(sim(z, z_prev) / t)))`` with cosine
    similarities; the other two models are in evaluation mode. A worker's first visit has no last one, and
    adds nothing. ``mu=0`` is FedAvg, bit for bit.

    Each worker keeps the part of the model that makes representations; a step has two more of its forwards.

    Args:
        representation: Name of the part of the module whose output is the representation, such as
            ``"encoder"``. It must take the data itself, not what another trained part has made of it.
        mu: Weight of the term, at least 0. The paper tries 0.1, 1, 5 and 10.
        temperature: ``t``, more than 0; the paper's is 0.5.
        weighting: As in `FedAvg`.
        buffers: As in `FedAvg`.

    Raises:
        TypeError: ``representation`` is no name.
        ValueError: ``mu`` or ``temperature`` is out of range.

    Example:
        >>> Moon(representation="encoder", mu=5.0).temperature
        0.5
    """

    representation: str
    mu: float = 1.0
    temperature: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.representation, str) or not self.representation:
            raise TypeError(
                f"representation must be the name of a part such as 'encoder', got {self.representation!r}."
            )
        require_at_least("mu", self.mu, 0)
        require_at_least("temperature", self.temperature, 0)
        if self.temperature == 0:
            raise ValueError("temperature must be more than 0, got 0: similarities are divided by it.")

    @override
    def why_not(self, job: Job) -> Iterator[str]:
        yield from unmatched("representation", (self.representation,), job)
        yield from loss_is_not_told(job, "MOON adds a term to the loss")
        if job.update == "sequential":
            yield "MOON contrasts with a round's global model. Use update='averaged', or another algorithm."

    @override
    def procedure(self, state: ServerState, plan: Plan) -> LocalProcedure | None:
        return ContrastiveTraining(self.representation, self.mu, self.temperature) if self.mu else None


@record
@dataclass(frozen=True)
class ContrastiveTraining(LocalProcedure):
    """Train with the contrast in the loss, and keep the model for the next visit.

    Args:
        representation: Name of the part that makes representations.
        mu: Weight of the term.
        temperature: By which similarities are divided.
    """

    representation: str
    mu: float
    temperature: float

    @override
    def run(self, local: LocalTraining) -> None:
        part = local.module.get_submodule(self.representation)
        previous = local.kept("previous")
        if previous is None:
            local.train()
        else:
            with self._contrasted(part, _frozen(part), _frozen(part, previous)) as terms:
                local.train(add_to_loss=lambda: self.mu * _mean_and_empty(terms, self.representation))
        local.keep("previous", [tensor.clone() for tensor in _tensors(part)])

    @contextmanager
    def _contrasted(self, part: nn.Module, glob: nn.Module, prev: nn.Module) -> Iterator[list[Tensor]]:
        """Collect the contrast of every representation that is made within the block."""
        terms: list[Tensor] = []

        def collect(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], z: Any) -> None:
            if not (isinstance(z, Tensor) and z.requires_grad):
                return
            _require_data((args, kwargs), self.representation)
            with torch.no_grad():
                z_glob, z_prev = glob(*args, **kwargs), prev(*args, **kwargs)
            terms.append(contrast(z, z_glob, z_prev, self.temperature))

        handle = part.register_forward_hook(collect, with_kwargs=True)
        try:
            yield terms
        finally:
            handle.remove()


def contrast(z: Tensor, z_glob: Tensor, z_prev: Tensor, temperature: float) -> Tensor:
    """Return the model-contrastive loss (Li et al. 2021, equation 3), averaged over samples.

    Args:
        z: Representations by the local model, shape ``(N, ...)``.
        z_glob: By the global model, of the same shape.
        z_prev: By the worker's last model, of the same shape.
        temperature: By which similarities are divided.

    Returns:
        The loss, shape ``()``, in float32 or wider.

    Example:
        >>> one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> contrast(one, z_glob=one, z_prev=other, temperature=1.0)  # log(1 + exp(-1))
        tensor(0.3133)
    """
    wide = torch.promote_types(z.dtype, torch.float32)
    z, z_glob, z_prev = (tensor.flatten(1).to(wide) for tensor in (z, z_glob, z_prev))
    nearer = cosine_similarity(z, z_prev) - cosine_similarity(z, z_glob)
    return softplus(nearer / temperature).mean()


def _frozen(part: nn.Module, tensors: Sequence[Tensor] | None = None) -> nn.Module:
    """Return a copy that is only evaluated, with its own tensors or others."""
    copy = deepcopy(part).requires_grad_(False).eval()
    if tensors is not None:
        torch._foreach_copy_(_tensors(copy), list(tensors))
    return copy


def _tensors(part: nn.Module) -> list[Tensor]:
    return [tensor.detach() for tensor in (*part.parameters(), *part.buffers())]


def _mean_and_empty(terms: list[Tensor], representation: str) -> Tensor:
    if not terms:
        raise ValueError(
            f"training_step has made a loss without {representation!r}, whose output MOON takes for the "
            "representation. Name the part that it calls."
        )
    mean = torch.stack(terms).mean()
    terms.clear()
    return mean


def _require_data(inputs: Any, representation: str) -> None:
    if any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in tree_leaves(inputs)):
        raise ValueError(
            f"MOON's representation {representation!r} gets what another trained part has made, and the "
            "global and the last model would begin in its middle. Name the part that takes the data."
        )
