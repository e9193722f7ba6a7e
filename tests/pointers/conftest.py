"""Workers for the tests of pointers."""

from __future__ import annotations

import pytest
import torch

from fedlightning.workers import TorchHook, VirtualWorker


@pytest.fixture(scope="session")
def hook() -> TorchHook:
    return TorchHook(torch)


@pytest.fixture
def bob(hook: TorchHook) -> VirtualWorker:
    return VirtualWorker(hook, id="bob")


@pytest.fixture
def alice(hook: TorchHook) -> VirtualWorker:
    return VirtualWorker(hook, id="alice")
