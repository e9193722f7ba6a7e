"""Both kinds of workers, for tests that each must pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest
import torch

from fedlightning.workers import TorchHook, VirtualWorker, Worker
from fedlightning.workers.remote import HostProcess, ProcessWorker

MakeWorker: TypeAlias = Callable[..., Worker]
PROGRAMS = "tests.workers.programs"
IN_ONE_PROCESS = pytest.mark.xdist_group("host process")


@pytest.fixture(scope="session")
def hook() -> TorchHook:
    return TorchHook(torch)


@pytest.fixture(scope="session")
def host_process() -> Iterator[HostProcess]:
    """Hold the workers of all tests that do not end their process: starting one takes seconds."""
    with HostProcess([PROGRAMS], threads=1) as process:
        yield process


@pytest.fixture
def make_process_worker(host_process: HostProcess) -> Iterator[MakeWorker]:
    made: list[ProcessWorker] = []

    def make(id: str = "bob", **settings: Any) -> ProcessWorker:
        made.append(ProcessWorker(id, process=host_process, modules=[PROGRAMS], **settings))
        return made[-1]

    yield make
    for worker in made:
        worker.close()


@pytest.fixture(params=["virtual", pytest.param("process", marks=IN_ONE_PROCESS)])
def make_worker(request: pytest.FixtureRequest, hook: TorchHook) -> MakeWorker:
    """Make workers of each kind in turn."""
    if request.param == "virtual":
        return lambda id="bob", **settings: VirtualWorker(hook, id=id, **settings)
    make: MakeWorker = request.getfixturevalue("make_process_worker")
    return make


@pytest.fixture
def bob(make_worker: MakeWorker) -> Worker:
    return make_worker("bob")
