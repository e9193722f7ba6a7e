"""The visits of a round carried out together: who may take part, and what is said where none can.

How the steps of several workers are taken as one lives in ``local.vectorised``; what crosses the workers'
doors meanwhile, in ``workers.joint``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info
from torch.optim import Optimizer

from fedlightning.local.training import train_locally
from fedlightning.local.vectorised.chunks import Errand, Errands, SeparateErrands
from fedlightning.local.vectorised.fitness import why_not_batchable
from fedlightning.local.vectorised.pooled import PooledErrands
from fedlightning.local.vectorised.refusal import in_few_words
from fedlightning.local.vectorised.training import TrainedChunk, VectorisedTraining
from fedlightning.local.vectorised.trial import Findings, Wish, examine
from fedlightning.local.visit import Visit
from fedlightning.strategy.federation import Member
from fedlightning.strategy.processes.messages import Way
from fedlightning.workers import VirtualWorker
from fedlightning.workers.joint import Baggage, JointProgram, Part, why_not_joint


@dataclass(frozen=True)
class JointVisit:
    """One visit among those that are carried out together.

    Args:
        member: The worker.
        visit: What is asked of it.
    """

    member: Member
    visit: Visit


@dataclass(frozen=True)
class DoneTogether:
    """A chunk of visits that are over.

    Args:
        chunk: What they have come to.
        parts: The part of each in the workers' accounts.
    """

    chunk: TrainedChunk
    parts: Sequence[Part]


class Together:
    """Carry out the visits of one fit's rounds together, where that works.

    Args:
        wish: What the user wants.
        compiles: Whether steps are compiled.

    Attributes:
        findings: What a trial has found out about the module; ``None`` before the first round.
    """

    def __init__(self, wish: Wish, *, compiles: bool = False) -> None:
        self.findings: Findings | None = None
        self._wish = wish
        self._compiles = compiles
        self._training: VectorisedTraining | None = None
        self._key: Any = None
        self._told: set[str] = set()

    @classmethod
    def of(cls, wish: Wish, *, compiles: bool) -> Together | None:
        """Return what carries visits out as the user wants, or ``None`` for the ordinary way.

        Args:
            wish: Whether steps are taken for several workers at once.
            compiles: Whether they are compiled; those of one worker at a time are, too.
        """
        if wish is False:
            return cls(1, compiles=True) if compiles else None
        return cls(wish, compiles=compiles)

    def carry_out(
        self, module: pl.LightningModule, optimizers: Sequence[Optimizer], visits: Sequence[JointVisit]
    ) -> Iterator[DoneTogether]:
        """Carry out visits, all from the global module as it is.

        Args:
            module: The global module, which stays as it is.
            optimizers: Its optimizers, with the settings of the round.
            visits: The visits.

        Yields:
            Chunks of those that are over. Visits that are in none are to be carried out one by one.
        """
        reason = self._why_not(visits)
        if reason:
            self.refuse(reason)
            return
        joint = joint_visits(module, optimizers, visits[0].visit)
        parts = [_part_of(joint, one) for one in visits]
        errands = SeparateErrands([_errand(part, one.visit) for part, one in zip(parts, visits, strict=True)])
        training = self._prepared(module, optimizers, errands)
        if training is None:
            return
        for chunk in self._trained(training, errands):
            yield DoneTogether(chunk, [parts[number] for number in chunk.numbers])

    def carry_out_unmade(
        self, module: pl.LightningModule, optimizers: Sequence[Optimizer], errands: PooledErrands
    ) -> Iterator[TrainedChunk]:
        """Carry out visits to workers of whom nothing has to be made.

        Args:
            module: The global module, which stays as it is.
            optimizers: Its optimizers, with the settings of the round.
            errands: The visits.

        Yields:
            Chunks of those that are over; if it ends before all are, none of them counts.
        """
        training = self._prepared(module, optimizers, errands)
        if training is not None:
            yield from self._trained(training, errands)

    def _trained(self, training: VectorisedTraining, errands: Errands) -> Iterator[TrainedChunk]:
        try:
            for chunk in training.train(errands):
                self.refuse_to_compile(training.why_not_compiled)
                yield chunk
        except Exception as error:  # noqa: BLE001  # the visits that are left are done one by one, and tell
            self.fail(in_few_words(error))

    def refuse(self, reason: str) -> None:
        """Say, once, why visits are carried out one by one.

        Args:
            reason: In a few words.
        """
        # True is 1, too.
        alone = self._compiles and type(self._wish) is int and self._wish == 1
        what = "does not compile local steps" if alone else "trains one worker after the other"
        self._say(f"FederatedStrategy {what}: {reason}.")

    def refuse_to_compile(self, reason: str) -> None:
        """Say, once, why steps are not compiled.

        Args:
            reason: In a few words; nothing if they are.
        """
        if reason:
            self._say(f"FederatedStrategy does not compile local steps: {reason}.")

    def _say(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            rank_zero_info(text)

    def _why_not(self, visits: Sequence[JointVisit]) -> str:
        reasons = (why_not_joint(one.member.worker) for one in visits)
        return next((reason for reason in reasons if reason), "")

    def way_of(
        self, module: pl.LightningModule, optimizers: Sequence[Optimizer], errands: Errands
    ) -> Way | None:
        """Say how visits are carried out together, in whatever process.

        Args:
            module: The global module.
            optimizers: Its optimizers, with the settings of the round.
            errands: The visits.

        Returns:
            The way; ``None`` after having said why there is none.
        """
        found = self._examined(module, optimizers, errands)
        if found is None:
            return None
        return Way(found.chunk, found.numbered, found.draws, compiled=self._compiles, limit=found.limit)

    def fail(self, reason: str) -> None:
        """Go on one by one, after visits that were begun together could not be.

        Args:
            reason: In a few words.
        """
        self.findings, self._training = Findings(reason), None
        self.refuse(reason)

    def _prepared(
        self, module: pl.LightningModule, optimizers: Sequence[Optimizer], errands: Errands
    ) -> VectorisedTraining | None:
        """Return what trains the module, or ``None`` after having said why nothing does."""
        found = self._examined(module, optimizers, errands)
        if found is None:
            return None
        if self._training is None:
            self._training = VectorisedTraining(
                module,
                optimizers[0],
                chunk=found.chunk,
                numbered=found.numbered,
                draws=found.draws,
                compiled=self._compiles,
                limit=found.limit,
            )
        return self._training

    def _examined(
        self, module: pl.LightningModule, optimizers: Sequence[Optimizer], errands: Errands
    ) -> Findings | None:
        """Return what a trial has found, or ``None`` after having said why nothing works."""
        reason = errands.why_not or why_not_batchable(module, optimizers, errands.visit)
        key = [id(optimizers[0])] if optimizers else []
        key += [hash((id(parameter), parameter.requires_grad)) for parameter in module.parameters()]
        if not reason and (self.findings is None or key != self._key):
            self._key, self._training = key, None
            self.findings = examine(module, optimizers, errands, self._wish)
        found = self.findings
        if reason or found is None or found.reason:
            self.refuse(reason or (found.reason if found is not None else ""))
            return None
        return found


def joint_visits(module: pl.LightningModule, optimizers: Sequence[Optimizer], visit: Visit) -> JointProgram:
    """Say what workers run together, and what is sent to each of them for it.

    Args:
        module: The module.
        optimizers: Its optimizers.
        visit: Any of the visits.
    """
    return JointProgram(train_locally, [Baggage.of(value) for value in (module, *optimizers)], (visit, None))


def _errand(part: Part, visit: Visit) -> Errand:
    stream, memory = part.objects
    return Errand(stream, memory, visit)


def _part_of(joint: JointProgram, one: JointVisit) -> Part:
    worker = one.member.worker
    assert isinstance(worker, VirtualWorker)
    return Part(joint, worker, (one.member.stream, one.member.memory))
