"""The visits of a round spread over several processes: what each is given, and what comes back.

What a process does is in ``processes``; how the strategy takes visits in, in ``local_round``.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace

import lightning.pytorch as pl
import torch
from torch import Tensor

from fedlightning.algorithms import Update
from fedlightning.algorithms.blocks import block_size
from fedlightning.local.failures import LocalStepFailed
from fedlightning.local.lean import count_as_step
from fedlightning.local.memory import WorkerMemory, take_outgoing
from fedlightning.local.procedure import LocalProcedure
from fedlightning.local.streams import Stream
from fedlightning.local.training import train_locally
from fedlightning.local.visit import Visit, VisitReport
from fedlightning.strategy.errors import NotFederatable, RoundFailed
from fedlightning.strategy.federation import Member
from fedlightning.strategy.optimization import Optimization
from fedlightning.strategy.processes.crew import PieceLost
from fedlightning.strategy.processes.division import pieces_of
from fedlightning.strategy.processes.messages import Failure, Job, Mean, Outcome
from fedlightning.strategy.processes.process import ProcessEnded
from fedlightning.strategy.processes.session import Session
from fedlightning.workers import VirtualWorker
from fedlightning.workers.joint import Baggage, JointProgram, Part, why_not_joint


@dataclass(frozen=True)
class SpreadVisit:
    """One visit among those that are made in other processes.

    Args:
        member: The worker.
        visit: What is asked of it.
        weight: Weight of its update.
        procedure: What it does; ``None`` to train, and nothing else.
    """

    member: Member
    visit: Visit
    weight: float
    procedure: LocalProcedure | None


@dataclass(frozen=True)
class SpreadRound:
    """What all visits of a round have in common.

    Args:
        module: The global module, which stays as it is.
        optimization: Its optimizers, with the settings of the round.
        start: What visits start with: its parameters and buffers.
        visits: The visits, in order.
        takes_means: Whether the mean of a block will do; else each update comes by itself.
        processed: Whether updates come processed, in place of the module.
        retries: How often a visit that raises is made again.
    """

    module: pl.LightningModule
    optimization: Optimization
    start: Sequence[Tensor]
    visits: Sequence[SpreadVisit]
    takes_means: bool
    processed: bool
    retries: int


@dataclass(frozen=True)
class DoneVisit:
    """A visit that was made in another process.

    Args:
        part: Its part in the worker's accounts.
        outcome: What it has come to.
    """

    part: Part
    outcome: Outcome

    def finish(self, visit: SpreadVisit, optimization: Optimization) -> VisitReport:
        """Let its report leave the worker, keep there what it has left, and return the report.

        Args:
            visit: The visit.
            optimization: Takes note of the settings at its end.

        Raises:
            RemoteError: It has failed.
            RefusedByPolicy: Something may not leave.
        """
        outcome, worker = self.outcome, visit.member.worker
        if outcome.failure is not None:
            raise self.part.failed(error_of(outcome.failure))
        assert outcome.report is not None
        report = outcome.report
        memory = self._memory
        if not report.failed:
            memory.take_back(outcome.memory, visit.visit.round)
            if optimization.keeps_settings:
                optimization.note_visit(report.steps, outcome.settings, report.schedulers)
        left: VisitReport = self.part.finish(replace(report, schedulers=()))
        if visit.procedure is not None and visit.procedure.sends:
            # It has come with the block's mean. Here it leaves the worker, where only its size counts.
            memory.outgoing = {name: _hollow(outline) for name, outline in outcome.outgoing.items()}
            worker.run(take_outgoing, visit.member.memory)
        return left

    @property
    def _memory(self) -> WorkerMemory:
        memory: WorkerMemory = self.part.objects[1]
        return memory


@dataclass(frozen=True)
class DonePiece:
    """Visits that are over: a block of the cohort, or one of its visits.

    Args:
        first: Place of the first of them in the cohort.
        visits: In order.
        update: The mean of what they have come to; ``None`` where all have failed.
        weight: Its weight.
    """

    first: int
    visits: Sequence[DoneVisit]
    update: Update | None
    weight: float


class Spread:
    """Make the visits of one fit's rounds in several processes.

    Args:
        count: How many processes.

    Attributes:
        count: How many processes.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._session: Session | None = None

    def open(self) -> Session:
        """Start the processes, or hire those of an earlier fit; again has no effect."""
        if self._session is None:
            self._session = Session(self.count)
        return self._session

    def prepare(self, trainer: pl.Trainer) -> None:
        """Start or hire the processes, and let them get ready; nobody waits for it.

        Args:
            trainer: The Trainer whose fit it is.

        Raises:
            NotFederatable: Its precision plugin cannot be sent to another process.
        """
        with suppress(ProcessEnded):  # the first round says so
            self.open().prepare(trainer)

    def close(self) -> None:
        """Let the processes go, for another fit."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _end(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.end()

    def carry_out(self, task: SpreadRound) -> Generator[DonePiece, None, None]:
        """Make visits, all from the same start.

        Args:
            task: The visits, and what they have in common.

        Yields:
            Pieces of the cohort whose visits are over, in order. If nobody asks for more, processes that are
            still at work end; if anything else fails, all of them do.

        Raises:
            NotFederatable: Something cannot be sent to another process, or come back from there.
            RoundFailed: A process has ended.
        """
        for one in task.visits:
            if reason := why_not_joint(one.member.worker):
                raise NotFederatable(f"{reason}, and processes are for plain virtual workers. {_REMEDY}")
        parts = _parts_of(task)
        size = block_size(len(task.visits)) if task.takes_means else 1
        procedures = {id(one.procedure): one.procedure for one in task.visits}
        numbers = {identity: number for number, identity in enumerate(procedures)}
        jobs = [
            (_job(one, part, numbers[id(one.procedure)], task), part.objects[0])
            for one, part in zip(task.visits, parts, strict=True)
        ]
        pieces = [jobs[piece.start : piece.stop] for piece in pieces_of(len(jobs), size, self.count)]
        with self.at_work(task.visits[0].visit.round, [piece[0][0].worker for piece in pieces]) as session:
            yield from self._carry_out(session, task, pieces, parts, list(procedures.values()))

    @contextmanager
    def at_work(self, round: int, workers: Sequence[str]) -> Iterator[Session]:
        """Let processes work within the block; they end if it raises what is not to be gone on from.

        Args:
            round: Number of the round.
            workers: Names of workers, to name one of each piece if the process that has it ends.

        Raises:
            RoundFailed: A process has ended.
        """
        try:
            yield self.open()
        except (GeneratorExit, NotFederatable):
            self.close()
            raise
        except BaseException as error:
            self._end()
            if isinstance(error, ProcessEnded):
                lost = error.piece if isinstance(error, PieceLost) else 0
                raise RoundFailed(workers[lost], round, None, str(error), "lost") from error
            raise

    def _carry_out(
        self,
        session: Session,
        task: SpreadRound,
        pieces: Sequence[Sequence[tuple[Job, Stream]]],
        parts: Sequence[Part],
        procedures: Sequence[LocalProcedure | None],
    ) -> Generator[DonePiece, None, None]:
        with session.sharing([stream for piece in pieces for _, stream in piece]):
            session.begin(
                task.module,
                task.optimization.optimizers,
                task.start,
                procedures,
                pieces=len(pieces),
                processed=task.processed,
                keeps_settings=task.optimization.keeps_settings,
                retries=task.retries,
            )
        first, number = 0, 0
        with closing(session.work_off(pieces)) as finished:
            for done in finished:
                refuse_changes(done.changed)
                for outcomes, mean in done.pieces:
                    visits = list(map(DoneVisit, parts[first:], outcomes))
                    yield DonePiece(first, visits, _update_of(task, mean, number, session), mean.weight)
                    first, number = first + len(visits), number + 1
        for optimizer in task.optimization.optimizers:
            count_as_step(optimizer)


def refuse_changes(changed: str) -> None:
    """Refuse a module that keeps something which would be lost.

    Args:
        changed: What a visit has changed of it; usually nothing.

    Raises:
        NotFederatable: It has changed something.
    """
    if changed:
        raise NotFederatable(
            f"a visit has changed the module's own {changed}, which stays in the process of that visit. "
            f"{_REMEDY}"
        )


def _parts_of(task: SpreadRound) -> list[Part]:
    baggage = [Baggage.of(task.module, returns=not task.processed)]
    baggage += [Baggage.of(optimizer) for optimizer in task.optimization.optimizers]
    programs: dict[int, JointProgram] = {}
    parts = []
    for one in task.visits:
        key = id(one.procedure)
        if key not in programs:
            programs[key] = JointProgram(train_locally, baggage, (one.visit, one.procedure))
        worker = one.member.worker
        assert isinstance(worker, VirtualWorker)
        parts.append(Part(programs[key], worker, (one.member.stream, one.member.memory)))
    return parts


def _job(one: SpreadVisit, part: Part, procedure: int, task: SpreadRound) -> Job:
    visit = one.visit
    if task.optimization.keeps_settings:
        visit = replace(visit, schedulers=task.optimization.travelling_schedulers())
    memory = part.objects[1].lent_out(visit.round)
    return Job(one.member.worker.id, visit, one.weight, procedure, None, memory)


def _update_of(task: SpreadRound, mean: Mean, piece: int, session: Session) -> Update | None:
    if not mean.count:
        return None
    if task.processed:
        return Update([], [], [], mean.extras)
    return session.update_of(piece, task.module.device, mean.extras)


def error_of(failure: Failure) -> Exception:
    """Return what was raised elsewhere, as if it had been raised here."""
    if failure.error.__cause__ is None:
        failure.error.__cause__ = RaisedElsewhere(f"\n{failure.text}")
    if failure.step is None:
        return failure.error
    failed = LocalStepFailed(failure.step)
    failed.__cause__ = failure.error
    return failed


def _hollow(outline: Sequence[tuple[tuple[int, ...], torch.dtype]]) -> list[Tensor]:
    return [torch.empty(size, dtype=dtype, device="meta") for size, dtype in outline]


class RaisedElsewhere(Exception):
    """The text of the stack in another process."""


_REMEDY = "Leave processes out, and visits are made in this process."
