"""The random stream of a visit: dropout and augmentation draw from it, not from the process's global one.

How seeds are derived from (seed, round, worker, purpose) lives in ``workers.random``.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng


@contextmanager
def own_randomness(seed: int | None) -> Iterator[None]:
    """Run the block with generators seeded by ``seed``, and restore the global ones after.

    Covers torch (every device), NumPy and Python, since augmentations draw from any of them.

    Args:
        seed: Non-negative 64-bit seed; ``None`` to leave the global streams in place.
    """
    if seed is None:
        yield
        return
    with isolate_rng():
        torch.manual_seed(seed)
        np.random.seed([seed & 0xFFFFFFFF, seed >> 32])
        random.seed(seed)
        yield
