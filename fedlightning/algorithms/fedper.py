"""Parts of the module that stay at each worker: FedPer and LG-FedAvg, which differ in what is personal.

Arivazhagan et al. 2019, "Federated Learning with Personalization Layers", Algorithms 1 and 2; Liang et al.
2020, "Think Locally, Act Globally", Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from typing_extensions import override

from fedlightning.algorithms.algorithm import Algorithm, Job, ServerState
from fedlightning.algorithms.plan import Plan
from fedlightning.local.procedure import LocalModel, LocalProcedure, LocalTraining, matches
from fedlightning.workers.remote import record


@dataclass(frozen=True)
class FedPer(Algorithm):
    """Keep the last layers at each worker, and average the rest.

    A worker's personal parameters and buffers never leave it. Those of the global module stay as they were
    initialised, and every worker begins with them. Where data at workers is evaluated, each evaluates the
    module with its own.

    Args:
        personal: Names of the parts, parameters or buffers that are personal, such as ``["head"]`` or
            ``["*.bias"]``; none make it FedAvg, bit for bit.
        weighting: As in `FedAvg`.

    Example:
        >>> FedPer(personal=["head"])
        FedPer(weighting='samples', buffers='average', personal=('head',))
    """

    personal: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.personal, str):
            raise TypeError(
                f"personal must be a list of names, got {self.personal!r}; use [{self.personal!r}]."
            )
        object.__setattr__(self, "personal", tuple(self.personal))

    @override
    def why_not(self, job: Job) -> Iterator[str]:
        yield from unmatched("personal", self.personal, job)

    @override
    def procedure(self, state: ServerState, plan: Plan) -> LocalProcedure | None:
        return PersonalTraining(self.personal) if self.personal else None

    @override
    def evaluation(self, state: ServerState) -> LocalProcedure | None:
        return PersonalTraining(self.personal) if self.personal else None


@dataclass(frozen=True)
class LGFedAvg(FedPer):
    """Keep the representation at each worker, and average the last layers: FedPer the other way round.

    Args:
        personal: Names of the parts of the representation, such as ``["encoder"]``.
        weighting: As in `FedAvg`.

    Example:
        >>> LGFedAvg(personal=["encoder"]).personal
        ('encoder',)
    """


@record
@dataclass(frozen=True)
class PersonalTraining(LocalProcedure):
    """Train with the worker's own parts in place, which stay when the module goes.

    Args:
        personal: Which parts.
    """

    personal: tuple[str, ...]

    @override
    def run(self, local: LocalTraining) -> None:
        shared = local.copy(self.personal)
        local.write(self.personal, local.kept("personal"))
        self.train(local)
        local.keep("personal", local.copy(self.personal))
        local.write(self.personal, shared)

    def train(self, local: LocalTraining) -> None:
        """Train the module, with the worker's own parts in it."""
        local.train()

    @override
    def personalise(self, local: LocalModel) -> None:
        local.write(self.personal, local.kept("personal"))


def unmatched(argument: str, patterns: tuple[str, ...], job: Job) -> Iterator[str]:
    """Yield a reason for each pattern that means nothing in a module."""
    for pattern in patterns:
        if not any(matches(name, [pattern]) for name in job.names):
            yield (
                f"{argument} names {pattern!r}, and the module has no such part, parameter or buffer. It has "
                f"{', '.join(sorted({name.rpartition('.')[0] or name for name in job.names}))}."
            )
