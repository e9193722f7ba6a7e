"""Whether a tape comes to the same as the step that it was recorded from: tried before it is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedlightning.local.tapes.tape import Tape

_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class TakenStep:
    """A step that was taken in the ordinary way.

    Args:
        read_into: Puts its batch where a tape expects it.
        outputs: What it has come to.
        before: What was in the memory that a step may change.
        after: What it has left there; ``None`` if that is there still.
        random: State of torch's default generator before it, where it may draw random numbers.
        random_after: Likewise after it.
    """

    read_into: Callable[[Sequence[Tensor]], None]
    outputs: Sequence[Tensor]
    before: Sequence[Tensor]
    after: Sequence[Tensor] | None = None
    random: Tensor | None = None
    random_after: Tensor | None = None


def is_proven(tape: Tape, step: TakenStep, places: Sequence[Tensor]) -> bool:
    """Play a tape once on what a step was taken on, and compare bits; all is as it was afterwards.

    Args:
        tape: The tape.
        step: The step.
        places: The memory that a step may change.
    """
    now, random_now = [place.clone() for place in places], torch.get_rng_state()
    try:
        fill(places, step.before)
        if step.random is not None:
            torch.set_rng_state(step.random)
        with torch.no_grad():
            step.read_into(tape.inputs)
        tape.play()
        drawn = step.random_after is None or torch.equal(torch.get_rng_state(), step.random_after)
        after = now if step.after is None else step.after
        results = zip([*tape.outputs, *places], [*step.outputs, *after], strict=True)
        return drawn and all(same_bits(played, expected) for played, expected in results)
    except Exception:  # noqa: BLE001  # whatever it is: steps go on being taken in the ordinary way
        return False
    finally:
        fill(places, now)
        if step.random is not None:
            torch.set_rng_state(random_now)


@torch.no_grad()
def fill(places: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Put values into memory.

    Args:
        places: The memory.
        values: One for each.
    """
    for place, value in zip(places, values, strict=True):
        place.copy_(value)


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Tell whether two tensors of one shape hold the same numbers, or no numbers in the same places.

    Args:
        one: One of them.
        other: The other one.
    """
    if not one.is_floating_point():
        return torch.equal(one, other)
    # As nearly always, and much faster than what follows.
    bits = _BITS.get(one.element_size())
    if bits is not None and torch.equal(one.view(bits), other.view(bits)):
        return True
    # What is not a number equals nothing, and has no sign; zeros have one.
    same_signs = one.signbit().eq(other.signbit()).logical_or_(one.isnan()).all()
    return bool(same_signs) and torch.allclose(one, other, rtol=0.0, atol=0.0, equal_nan=True)
