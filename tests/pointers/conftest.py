"""Workers for the tests of pointers."""

from __future__ import annotations

import gc

import pytest
import torch

from fedlightning.workers import TorchHook, VirtualWorker


@pytest.fixture(scope="module")
def quick_searches() -> None:
    """Have searches for garbage pass over what earlier tests have imported since all were collected."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def hook() -> TorchHook:
    return TorchHook(torch)


@pytest.fixture
def bob(hook: TorchHook) -> VirtualWorker:
    return VirtualWorker(hook, id="bob")


@pytest.fixture
def alice(hook: TorchHook) -> VirtualWorker:
    return VirtualWorker(hook, id="alice")
