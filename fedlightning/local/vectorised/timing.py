"""How long steps take one worker after the other, and together: the clock of a trial.

A short measurement cannot tell chunks apart whose rounds differ by a tenth: the machine is busy with other
things, caches are cold. So a rule says how many workers take their steps together, as far as sizes tell, and
what is measured overrules it only where it clearly speaks against it. The same fit is the same again.
"""

from __future__ import annotations

from time import get_clock_info, process_time

import lightning.pytorch as pl
from torch.optim import Optimizer

from fedlightning.local.known import looked_up_once
from fedlightning.local.one_by_one.training import OneByOne, why_not_one_by_one
from fedlightning.local.training import train_locally
from fedlightning.local.vectorised.chunks import Errands
from fedlightning.local.vectorised.pooled import PooledErrands
from fedlightning.local.vectorised.training import VectorisedTraining

LARGEST_CHUNK = 1000
"""The most workers that take their steps together."""

USUAL_STACK = 1 << 23
"""Bytes that the parameters of a chunk may have; more share no cache with what is computed from them."""

SMALL_STACK = 1 << 22
"""Up to so many bytes, a step costs next to nothing beside its overheads."""

CLEARLY = 1.15
"""By how many times another chunk must be faster than the usual one to be taken in its place."""

LONG_STEP = 0.003
"""Seconds of a step that is long by itself: many at once only save the time in which nothing is computed."""

_FIRST_STEPS = 2
"""Steps until all is warm, and recorded."""

_TRIED_STEPS = 6
"""Steps of a visit that is timed: in fewer, what a visit costs beside them would hide what they cost."""

_TIMES = 2


def usual_chunk(workers: int, size: int) -> int:
    """Return how many workers take their steps together, as a rule: all chunks of a round alike.

    Args:
        workers: Visits of a round.
        size: Bytes of what one worker trains.
    """
    most = max(2, min(LARGEST_CHUNK, USUAL_STACK // max(size, 1)))
    return -(-workers // -(-workers // most))


def seconds_alone(module: pl.LightningModule, optimizer: Optimizer, errands: Errands) -> float:
    """Measure the first steps of visits, one after the other, in the way in which they would be made.

    Args:
        module: A copy of the module, which is trained.
        optimizer: Its optimizer.
        errands: Two visits. The first is for what happens only once.

    Returns:
        Seconds per step of the second.
    """
    _, seconds = _alone(module, optimizer, errands.shortened(_FIRST_STEPS))
    if seconds > LONG_STEP:
        return seconds
    return _alone(module, optimizer, errands.shortened(_TRIED_STEPS))[1]


def _alone(module: pl.LightningModule, optimizer: Optimizer, errands: Errands) -> list[float]:
    """Carry out two visits, and return seconds per step of each."""
    seconds = []
    if isinstance(errands, PooledErrands) and not why_not_one_by_one(module, [optimizer], errands.visit):
        with looked_up_once(module):
            visits = OneByOne(module, optimizer, errands)
            with visits.at_work():
                for number in range(2):
                    started = process_time()
                    visits.visit(number)
                    seconds.append(_since(started) / max(1, int(errands.steps[number])))
        return seconds
    for number in range(2):
        errand = errands.one(number)
        started = process_time()
        train_locally(module, [optimizer], errand.stream, errand.memory, errand.visit)
        seconds.append(_since(started) / max(1, int(errands.steps[number])))
    return seconds


def best_chunk(
    trainings: list[VectorisedTraining], errands: Errands, alone: float
) -> tuple[VectorisedTraining, float]:
    """Measure the first steps of visits that are carried out together.

    Args:
        trainings: What carries them out, with chunks of various sizes; the first one's is the usual.
        errands: The visits of a round.
        alone: Seconds per step one worker after the other. Whatever is less is enough of the usual chunk.

    Returns:
        The usual one, unless another is clearly faster; and its seconds per step of one worker.
    """
    for training in trainings:
        _carry_out(training, errands, _FIRST_STEPS)  # recorded meanwhile; memory is used for the first time
    least = [float("inf")] * len(trainings)
    for _ in range(_TIMES):
        for number, training in enumerate(trainings):
            least[number] = min(least[number], _carry_out(training, errands, _TRIED_STEPS))
        best = min(range(len(trainings)), key=least.__getitem__)
        if least[best] * CLEARLY > least[0]:
            best = 0
        if best == 0 and least[0] < alone:
            break
    return trainings[best], least[best]


def seconds_together(training: VectorisedTraining, errands: Errands) -> float:
    """Measure the first steps of visits that are carried out together, the first time that any are: untaped.

    Args:
        training: What carries them out.
        errands: The visits of a round.

    Returns:
        Seconds per step of one worker.
    """
    return _carry_out(training, errands, _FIRST_STEPS, 1)


def _carry_out(training: VectorisedTraining, errands: Errands, steps: int, uses: int | None = None) -> float:
    some = errands.some(range(min(training.chunk, len(errands)))).shortened(steps)
    if uses is None:
        uses = -(-len(errands) // training.chunk) * int(errands.steps.max())
    started = process_time()
    for _ in training.train(some, uses):
        pass
    return _since(started) / max(1, int(some.steps.sum()))


def _since(started: float) -> float:
    # A coarse clock may not have moved.
    return max(process_time() - started, get_clock_info("process_time").resolution)
