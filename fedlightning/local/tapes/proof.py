"""Whether a tape comes to the same as the step that it was recorded from: tried before it is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fedlightning.local.tapes.tape import Tape

_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def is_proven(
    tape: Tape,
    read_into: Callable[[Sequence[Tensor]], None],
    outputs: Sequence[Tensor],
    places: Sequence[Tensor],
    before: Sequence[Tensor],
    random: Tensor | None = None,
) -> bool:
    """Play a tape once, and compare bits; all is as it was afterwards.

    Args:
        tape: The tape.
        read_into: Puts the batch of the step where a tape expects it.
        outputs: What the step has come to.
        places: What it has changed; as it is now afterwards.
        before: What was there before.
        random: State of torch's default generator before the step, where that may draw random numbers.
    """
    after = [place.clone() for place in places]
    random_after = None if random is None else torch.get_rng_state()
    try:
        fill(places, before)
        if random is not None:
            torch.set_rng_state(random)
        with torch.no_grad():
            read_into(tape.inputs)
        tape.play()
        drawn = random_after is None or torch.equal(torch.get_rng_state(), random_after)
        results = zip([*tape.outputs, *places], [*outputs, *after], strict=True)
        return drawn and all(same_bits(played, expected) for played, expected in results)
    except Exception:  # noqa: BLE001  # whatever it is: steps go on being taken in the ordinary way
        return False
    finally:
        fill(places, after)
        if random_after is not None:
            torch.set_rng_state(random_after)


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
