"""Random kernels that draw more or fewer numbers depending on values: from the next number one could tell."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Found by drawing with different values from the same state. All others draw by the number of elements.
DRAWS_BY_VALUE = frozenset(
    {
        "_sample_dirichlet",
        "_standard_gamma",
        "binomial",
        "poisson",
        "rrelu_with_noise",
        "rrelu_with_noise_",
        "rrelu_with_noise_functional",
    }
)
"""Names of the kernels that need `steady_generator` on private values."""


@contextmanager
def steady_generator(generator: torch.Generator | None = None) -> Iterator[None]:
    """Let a generator go on after the block as if one number had been drawn in it, however many were.

    Args:
        generator: What the block draws from; None for the process's own on the CPU. Those of accelerators
            count by kernel, not by number drawn, and are left alone.
    """
    source = torch.default_generator if generator is None else generator
    if source.device.type != "cpu":
        yield
        return
    before = source.get_state()
    try:
        yield
    finally:
        source.set_state(before)
        torch.rand(1, generator=source)
