"""A cohort in columns spread over several processes: which visits lie in which piece, and what comes back.

How a round goes by it is in ``cohort_round``; members' visits one by one are spread by ``spread``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

import lightning.pytorch as pl
import numpy as np

from fedlightning.algorithms import Update
from fedlightning.algorithms.blocks import block_of, block_size
from fedlightning.local.known import known
from fedlightning.local.lean import count_as_step
from fedlightning.local.vectorised.chunks import Numbers
from fedlightning.local.vectorised.pooled import PooledErrands
from fedlightning.strategy.errors import FailureKind
from fedlightning.strategy.optimization import Optimization
from fedlightning.strategy.processes.cohort_rows import is_better_by_cohort
from fedlightning.strategy.processes.division import pieces_of
from fedlightning.strategy.processes.messages import Cohort, ColumnsDone, Way
from fedlightning.strategy.processes.session import Session
from fedlightning.strategy.spread import Spread, refuse_changes


@dataclass(frozen=True)
class SpreadCohort:
    """A round's visits in columns.

    Args:
        module: The global module, which stays as it is.
        optimization: Its optimizers, with the settings of the round.
        errands: The visits.
        weights: Weights of their updates.
        way: How they are carried out together; ``None`` to make one after the other.
        takes_means: Whether the mean of a piece will do; else each update comes by itself.
        retries: How often a visit that raises is made again.
        skips: Kinds of failures that the round survives.
        following: Returns the visits of the round after this one; ``None`` where nobody knows of them yet.
    """

    module: pl.LightningModule
    optimization: Optimization
    errands: PooledErrands
    weights: Sequence[float]
    way: Way | None
    takes_means: bool
    retries: int
    skips: frozenset[FailureKind]
    following: Callable[[], PooledErrands] | None = None


@dataclass(frozen=True)
class PieceOfMean:
    """What a piece of the cohort has come to.

    Args:
        update: Its mean, valid until the next portion is asked for.
        weight: Its weight.
        block: Number of its block.
        whole: Whether it is all of the block.
    """

    update: Update
    weight: float
    block: int
    whole: bool


@dataclass(frozen=True)
class DonePortion:
    """What has come of some visits, or of means of some.

    Args:
        numbers: Positions in the cohort of the visits that are told of, in order.
        done: What they have come to.
        updates: Means of pieces, in order through the round; their visits may be told of later.
    """

    numbers: Sequence[int]
    done: ColumnsDone
    updates: Sequence[PieceOfMean]


@dataclass(frozen=True)
class _Piece:
    """Visits whose mean is taken in one process.

    Args:
        numbers: Their positions in the cohort.
        block: Number of the block that they are, or belong to.
        whole: Whether they are all of it.
    """

    numbers: Numbers
    block: int
    whole: bool


def carry_out(spread: Spread, cohort: SpreadCohort) -> Generator[DonePortion, None, None]:
    """Make visits in other processes, all from the global module as it is.

    Args:
        spread: The processes.
        cohort: The visits, and what they have in common.

    Yields:
        Portions of visits that are over, in order. As of `Spread.carry_out`.

    Raises:
        NotFederatable: Something cannot be sent to another process, or come back from there.
        RoundFailed: A process has ended.
    """
    pieces = _pieces_of(cohort, spread.count)
    workers = [cohort.errands.workers[piece.numbers[0]] for piece in pieces]
    with spread.at_work(cohort.errands.visit.round, workers) as session:
        _begin(session, cohort, len(pieces))
        yield from _portions(session, cohort, pieces)
    for optimizer in cohort.optimization.optimizers:
        count_as_step(optimizer)


def _pieces_of(cohort: SpreadCohort, processes: int) -> list[_Piece]:
    if cohort.way is not None:
        # Who lies beside whom depends on the cohort alone.
        chunks = cohort.errands.chunks(cohort.way.chunk)
        return [_Piece(numbers, block, whole=True) for block, numbers in enumerate(chunks)]
    count = len(cohort.errands)
    size = block_size(count) if cohort.takes_means else 1
    return [
        _Piece(np.arange(piece.start, piece.stop), block_of(piece.start, count), len(piece) > 1)
        for piece in pieces_of(count, size, processes)
    ]


def _begin(session: Session, cohort: SpreadCohort, pieces: int) -> None:
    tensors, errands = known(cohort.module), cohort.errands
    met = Cohort(errands, cohort.weights, cohort.way, cohort.skips)
    is_met = session.has_foretold(met)
    roots: Sequence[object] = errands.pool.roots
    by_cohort = not session.knows(roots) and _is_foreseen(cohort) and is_better_by_cohort(errands)
    if by_cohort:
        roots = [errands.pool.settings]
    elif not is_met and session.knows(roots):
        session.meet(replace(met, errands=errands.alone()), now=True)
        is_met = True
    with session.sharing_roots(roots):
        session.begin(
            cohort.module,
            cohort.optimization.optimizers,
            [*tensors.parameters, *tensors.buffers],
            [],
            pieces=pieces,
            processed=False,
            keeps_settings=False,
            retries=cohort.retries,
        )
    if not is_met:
        there = session.place(errands) if by_cohort else errands.alone()
        session.meet(replace(met, errands=there), now=False)


def _is_foreseen(cohort: SpreadCohort) -> bool:
    return cohort.following is not None and cohort.way is None


def _foretell(session: Session, cohort: SpreadCohort) -> None:
    """Let processes that are at work get ready for the next round."""
    if cohort.following is not None and cohort.way is None:
        session.foretell(cohort.following())


def _portions(
    session: Session, cohort: SpreadCohort, pieces: Sequence[_Piece]
) -> Generator[DonePortion, None, None]:
    device = cohort.module.device
    numbers_of_pieces = [piece.numbers for piece in pieces]
    visits = session.work_off_columns(
        numbers_of_pieces, in_turn=cohort.way is None, meanwhile=partial(_foretell, session, cohort)
    )
    with closing(visits) as finished:
        for done in finished:
            refuse_changes(done.changed)
            updates = [
                PieceOfMean(
                    session.update_of(number, device, mean.extras),
                    mean.weight,
                    pieces[number].block,
                    pieces[number].whole,
                )
                for number, mean in zip(done.pieces, done.means, strict=False)  # none where they have failed
                if mean.count
            ]
            yield DonePortion(_told_of(done), done, updates)


def _told_of(done: ColumnsDone) -> list[int]:
    reported = chain.from_iterable(positions.tolist() for positions, _ in done.reports)
    return sorted({*reported, *done.failures})
