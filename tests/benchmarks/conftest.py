"""Benchmarks are commands, which set what they like for their process; tests after them must not notice."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def process_as_before() -> Iterator[None]:
    """Set threads and what Lightning logs back to what they were."""
    lightning = logging.getLogger("lightning.pytorch")
    threads, level = torch.get_num_threads(), lightning.level
    yield
    torch.set_num_threads(threads)
    lightning.setLevel(level)
