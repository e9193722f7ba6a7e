"""torch's own database of operators: what arguments to try each on. What is tried is for the tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.testing._internal.common_utils import SEED, set_rng_seed


def samples_of(
    operator: Any, dtype: torch.dtype = torch.float32, *, requires_grad: bool = False
) -> Iterator[Any]:
    """Yield an operator's sample inputs on the CPU, the same ones each time.

    They are those of ``operator.sample_inputs``, which looks for a test of torch's own in the whole stack,
    and for the file of each frame among all modules: under pytest that takes longer than the operators do.

    Args:
        operator: An entry of ``op_db``.
        dtype: Type of the numbers.
        requires_grad: Whether tensors of such numbers require gradients.
    """
    set_rng_seed(SEED)
    samples = iter(operator.sample_inputs_func(operator, "cpu", dtype, requires_grad))
    while True:
        set_rng_seed(SEED)
        sample = next(samples, None)
        if sample is None:
            return
        yield sample
