"""Steps of a round that are taken by playing a tape: when one is recorded, and for how long it holds.

A step may read of the module in Python what changes between rounds (its epoch, a factor that a callback
sets). The optimizer's settings change then, too. So tapes hold for one round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_unflatten

from fedlightning.local.vectorised.arena import Arena
from fedlightning.local.vectorised.logs import ChunkLogs, Notes
from fedlightning.local.vectorised.stacked_batch import StackedBatch
from fedlightning.local.vectorised.tape import Recorder, Tape

USES = 8
"""Steps of a round for which tapes are worth their recording, which takes as long as some three steps."""


@dataclass(frozen=True)
class StepResult:
    """What a step has left, beside parameters.

    Args:
        losses: Shape ``(workers,)``, without a graph.
        logged: What was logged and counted, as `ChunkLogs.keep` takes it.
        gradients: Whatever is left to be done with.
    """

    losses: Tensor
    logged: Sequence[Tensor]
    gradients: Sequence[Tensor | None]


@dataclass(frozen=True)
class _Taped:
    """A tape and what belongs to it in Python.

    Args:
        tape: The tape: what comes out are losses, what was logged and counted, and gradients.
        notes: What the step has noted.
        batch: One worker's batch, of which only shapes are looked at.
        has_gradient: Of which parameters there are gradients.
    """

    tape: Tape
    notes: Notes
    batch: Any
    has_gradient: Sequence[bool]


class TapedSteps:
    """Take steps by tapes, where there are some.

    Args:
        places: The memory of what the workers train.
    """

    def __init__(self, places: Sequence[Tensor]) -> None:
        self._places = places
        self._arena = Arena()
        self._tapes: dict[Any, _Taped | None] = {}
        self._seen: set[Any] = set()
        self._holds_for: Any = None

    def hold_for(self, conditions: Any) -> None:
        """Forget all tapes that were recorded under other conditions.

        Args:
            conditions: Anything that can be compared.
        """
        if conditions != self._holds_for:
            self._tapes.clear()
            self._seen.clear()
            self._holds_for = conditions

    def take(self, batch: StackedBatch, logs: ChunkLogs, step: Callable[[], StepResult]) -> StepResult:
        """Take a step by a tape, or record one: at the second use, since many shapes come only once.

        Args:
            batch: The workers' batches.
            logs: Where what is logged goes.
            step: Takes the step in the ordinary way, on that batch.
        """
        key = _key_of(batch)
        if key not in self._seen:
            self._seen.add(key)
            return step()
        if key not in self._tapes:
            return self._recorded(key, batch, logs, step)
        taped = self._tapes[key]
        return step() if taped is None else _played(taped, batch, logs)

    def _recorded(
        self, key: Any, batch: StackedBatch, logs: ChunkLogs, step: Callable[[], StepResult]
    ) -> StepResult:
        with Recorder(batch.tensors, self._places) as recorder:
            result = step()
        gradients = [gradient for gradient in result.gradients if gradient is not None]
        tape = recorder.tape([result.losses, *result.logged, *gradients], self._arena)
        self._tapes[key] = None
        if tape is not None:
            one = tree_unflatten([tensor[0] for tensor in tape.inputs], batch.structure)
            has_gradient = [gradient is not None for gradient in result.gradients]
            self._tapes[key] = _Taped(tape, logs.notes, one, has_gradient)
        return result


def _played(taped: _Taped, batch: StackedBatch, logs: ChunkLogs) -> StepResult:
    logs.start_step(taped.batch)
    tape, count = taped.tape, 1 + taped.notes.tensors
    batch.read_into(tape.inputs)
    tape.play()
    # The next play overwrites them; gradients have been made use of by then.
    losses, *logged = [tensor.clone() for tensor in tape.outputs[:count]]
    logs.log_again(taped.notes, logged)
    logs.keep(batch.rows, logged)
    gradients = iter(tape.outputs[count:])
    return StepResult(losses, logged, [next(gradients) if has else None for has in taped.has_gradient])


def _key_of(batch: StackedBatch) -> Any:
    return batch.kinds, batch.structure, batch.batch_idx, batch.rows.start, batch.rows.stop
