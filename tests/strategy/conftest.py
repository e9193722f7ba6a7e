"""A process that holds workers, for all fits over workers in other processes: starting one takes seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

from fedlightning.workers import HostProcess, ProcessWorker, Worker

MakeWorkers: TypeAlias = Callable[..., list[Worker]]


@pytest.fixture(scope="session")
def host() -> Iterator[HostProcess]:
    """Hold the workers of all tests of the group "workers elsewhere"."""
    with HostProcess(threads=1) as process:
        yield process


@pytest.fixture
def workers_elsewhere(host: HostProcess) -> Iterator[MakeWorkers]:
    """Return a function that makes workers of some names, which can build what is in `remote_toys`."""
    made: list[Worker] = []

    def make(*names: str, **settings: Any) -> list[Worker]:
        settings = {"modules": ["tests.strategy.remote_toys"], "process": host} | settings
        workers: list[Worker] = [ProcessWorker(name, **settings) for name in names]
        made.extend(workers)
        return workers

    yield make
    for worker in made:
        worker.close()
