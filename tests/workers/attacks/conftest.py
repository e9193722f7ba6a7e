"""A worker that keeps its data, in this process and in another, and a secret that lies there."""

from __future__ import annotations

import pytest
import torch

from fedlightning.pointers import PointerTensor
from fedlightning.workers import KeepData, Worker
from tests.workers.conftest import MakeWorker

VALUES = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0]


@pytest.fixture
def guard(make_worker: MakeWorker) -> Worker:
    return make_worker("bob", policy=KeepData())


@pytest.fixture
def secret(guard: Worker) -> PointerTensor:
    pointer = guard.register(torch.tensor(VALUES), owner="clinic", tags=("#scans",))
    assert isinstance(pointer, PointerTensor)
    return pointer


@pytest.fixture
def own(guard: Worker) -> PointerTensor:
    """Return a tensor of the controller's own, to carry values away in."""
    pointer = guard.send(torch.zeros(len(VALUES)))
    assert isinstance(pointer, PointerTensor)
    return pointer
