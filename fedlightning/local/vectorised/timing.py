"""Whether steps are shorter together: what sizes tell, and how long steps take one worker after the other.

A short measurement cannot tell chunks apart whose rounds differ by a tenth: the machine is busy with other
things, caches are cold. So rules say what is done, as far as sizes tell, and what is measured overrules them
only where it clearly speaks against them. The same fit is the same again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import get_clock_info, process_time

import lightning.pytorch as pl
from torch.optim import SGD, Optimizer

from fedlightning.local.known import looked_up_once
from fedlightning.local.lean import LeanSGD
from fedlightning.local.one_by_one.step_tapes import StepTapes
from fedlightning.local.one_by_one.training import OneByOne, why_not_one_by_one
from fedlightning.local.training import train_locally
from fedlightning.local.vectorised.chunks import Errands
from fedlightning.local.vectorised.pooled import PooledErrands
from fedlightning.local.vectorised.training import VectorisedTraining

LARGEST_CHUNK = 1000
"""The most workers that take their steps together."""

USUAL_STACK = 1 << 23
"""Bytes that the parameters of a chunk may have; more share no cache with what is computed from them."""

PLAYED_STACK = 5 << 20
"""Likewise of steps that are played, which have few overheads to share."""

SMALL_STACK = 1 << 22
"""Up to so many bytes, a step costs next to nothing beside its overheads."""

MANY = 16
"""How many workers save more by sharing such a step's overheads than can be lost elsewhere."""

LARGE_STATE = 1 << 17
"""Bytes of parameters from which an optimizer's reading and writing of its own state takes longer than what
is shared: one after the other, all workers use the same memory for it, which stays in the caches."""

LARGE_MOMENTUM = 1 << 19
"""Likewise of SGD with momentum, to whose state gradients are added as factors."""

CLEARLY = 1.15
"""By how many times what a rule speaks against must be faster to be done nonetheless."""

LONG_STEP = 0.003
"""Seconds of a step that is long by itself: many at once only save the time in which nothing is computed."""

_FIRST_STEPS = 3
"""Steps until all is warm, recorded, and has been played."""

_FIRST_ALONE = 4
"""Likewise of a visit by itself, of which one step more is taken in the ordinary way."""

_TRIED_STEPS = 8
"""Steps of a visit that is timed: in fewer, what a visit costs beside them would hide what they cost."""

_TIMES = 2


def usual_chunk(workers: int, size: int, *, by_tape: bool) -> int:
    """Return how many workers take their steps together, as a rule: all chunks of a round alike.

    Args:
        workers: Visits of a round.
        size: Bytes of what one worker trains.
        by_tape: Whether steps together can be played.
    """
    stack = PLAYED_STACK if by_tape else USUAL_STACK
    most = max(2, min(LARGEST_CHUNK, stack // max(size, 1)))
    return -(-workers // -(-workers // most))


def is_clearly_faster(workers: int, size: int, *, by_tape: bool) -> bool:
    """Tell whether steps together are faster, so that nothing has to be measured.

    Args:
        workers: How many take their steps together.
        size: Bytes of what one of them trains.
        by_tape: Whether steps together can be played.
    """
    return by_tape and workers >= MANY and workers * size <= SMALL_STACK


def is_clearly_slower(optimizer: Optimizer, size: int, *, is_long: bool) -> bool:
    """Tell whether steps together are not faster, so that nothing has to be measured.

    Args:
        optimizer: The module's optimizer.
        size: Bytes of what one worker trains.
        is_long: Whether a step is long by itself, and would be taken in chunks of one.
    """
    if type(optimizer) is not SGD:
        return size >= LARGE_STATE
    # The momentum of a chunk of one fits into the caches, too.
    return size >= LARGE_MOMENTUM and not is_long and not LeanSGD.fits(optimizer)


def longest_step(optimizer: Optimizer, alone: float) -> float:
    """Return the most seconds that a step together may take of each worker where sizes are not clear.

    Args:
        optimizer: The module's optimizer.
        alone: Seconds of a step by itself.
    """
    return alone * CLEARLY if type(optimizer) is SGD else alone / CLEARLY


def seconds_alone(module: pl.LightningModule, optimizer: Optimizer, errands: Errands) -> float:
    """Measure the first steps of a visit by itself, in the way in which it would be made.

    Args:
        module: A copy of the module, which is trained.
        optimizer: Its optimizer.
        errands: Two visits. The first is for what happens only once.

    Returns:
        Seconds per step of the second.
    """
    tapes = StepTapes()
    _alone(module, optimizer, errands.some([0]).shortened(_FIRST_ALONE), tapes)
    return _alone(module, optimizer, errands.some([1]).shortened(_TRIED_STEPS), tapes)


def _alone(module: pl.LightningModule, optimizer: Optimizer, errands: Errands, tapes: StepTapes) -> float:
    """Carry out a visit, and return its seconds per step."""
    if isinstance(errands, PooledErrands) and not why_not_one_by_one(module, [optimizer], errands.visit):
        with looked_up_once(module):
            visits = OneByOne(module, optimizer, errands, tapes)
            with visits.at_work():
                started = process_time()
                visits.visit(0)
                seconds = _since(started)
    else:
        errand = errands.one(0)
        started = process_time()
        train_locally(module, [optimizer], errand.stream, errand.memory, errand.visit)
        seconds = _since(started)
    return seconds / max(1, int(errands.steps[0]))


def best_chunk(make: Callable[[int], VectorisedTraining], chunks: Sequence[int], errands: Errands) -> int:
    """Measure the first steps of visits that are carried out together, in chunks of one size after the other.

    Not in turn: the memory of what has been measured is given back before the next one needs its own.

    Args:
        make: Returns what carries visits out in chunks of some size.
        chunks: The sizes; the first one is the usual.
        errands: The visits of a round.

    Returns:
        The usual one, unless another is clearly faster.
    """
    least = [_least_seconds(make(chunk), errands) for chunk in chunks]
    best = min(range(len(chunks)), key=least.__getitem__)
    return chunks[0] if least[best] * CLEARLY > least[0] else chunks[best]


def _least_seconds(training: VectorisedTraining, errands: Errands) -> float:
    _carry_out(training, errands, _FIRST_STEPS)
    return min(_carry_out(training, errands, _FIRST_STEPS) for _ in range(_TIMES))


def _carry_out(training: VectorisedTraining, errands: Errands, steps: int) -> float:
    some = errands.some(range(min(training.chunk, len(errands)))).shortened(steps)
    uses = -(-len(errands) // training.chunk) * int(errands.steps.max())
    started = process_time()
    for _ in training.train(some, uses):
        pass
    return _since(started) / max(1, int(some.steps.sum()))


def _since(started: float) -> float:
    # A coarse clock may not have moved.
    return max(process_time() - started, get_clock_info("process_time").resolution)
