"""Random streams: a visit's own, and the process's global ones, which a checkpoint keeps.

How seeds are derived from (seed, round, worker, purpose) lives in ``workers.random``.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng

_isolated: ContextVar[bool] = ContextVar("isolated", default=False)


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
    with nullcontext() if _isolated.get() else isolate_rng():
        seed_streams(seed)
        yield


def seed_streams(seed: int) -> None:
    """Seed the global generators of torch, NumPy and Python.

    Args:
        seed: Non-negative 64-bit seed.
    """
    _seed_torch(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # all that NumPy's global generator takes in one piece
    random.seed(seed)


@contextmanager
def isolated_streams() -> Iterator[None]:
    """Restore the global generators after the block, once, so that visits within it need not do so each.

    Saving and restoring NumPy's alone takes as long as a step of a small module. Nothing but visits may draw
    random numbers within the block.
    """
    token = _isolated.set(True)
    try:
        with isolate_rng():
            yield
    finally:
        _isolated.reset(token)


def _seed_torch(seed: int) -> None:
    # `torch.manual_seed` also queues the seed, with the text of the stack, for each kind of accelerator that
    # is not in use: without one, that took longer than a small visit, and the queue grew with every visit.
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def capture_global_streams() -> dict[str, Any]:
    """Return the state of torch's, NumPy's and Python's global generators, as tensors and plain values.

    Plain, so that a checkpoint with them loads under ``weights_only=True``.
    """
    name, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "devices": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [str(name), np.asarray(keys).tolist(), *rest],
        "python": random.getstate(),
    }


def restore_global_streams(streams: Mapping[str, Any]) -> None:
    """Set the global generators to what `capture_global_streams` returned.

    Args:
        streams: The captured states. Those of devices that this machine lacks are passed over.
    """
    torch.set_rng_state(streams["torch"])
    for device, state in enumerate(streams["devices"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, device)
    name, keys, *rest = streams["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    version, internal, gauss = streams["python"]
    random.setstate((version, tuple(internal), gauss))
