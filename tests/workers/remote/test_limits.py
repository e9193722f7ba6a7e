"""A message takes no more of the machine than the worker's process may; what is too slow ends it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from fedlightning.workers import HostProcess, Limits, ProcessWorker, RemoteError, WorkerLost
from tests.workers.conftest import IN_ONE_PROCESS, PROGRAMS
from tests.workers.programs import sleep_long

pytestmark = [IN_ONE_PROCESS, pytest.mark.skipif(sys.platform != "linux", reason="Linux keeps these limits")]
LITTLE = 2**27


def test_more_memory_than_allowed_is_an_error_and_the_worker_goes_on() -> None:
    with ProcessWorker("small", limits=Limits(memory_bytes=LITTLE)) as small:
        x = small.send(torch.ones(4))
        for ask in (
            lambda: x.new_zeros(2**40),
            lambda: x.new_empty(LITTLE),
            lambda: x.repeat(2**30),
            lambda: x.expand(2**24, 4).contiguous(),
            lambda: small.send(torch.zeros(LITTLE // 2)),
        ):
            with pytest.raises(RemoteError, match="memory"):
                ask()
        assert (x + x.new_zeros(LITTLE // 16)[:4]).get().tolist() == [1, 1, 1, 1]


def test_many_small_objects_are_too_much_as_well() -> None:
    with ProcessWorker("small", limits=Limits(memory_bytes=LITTLE)) as small:
        x = small.send(torch.ones(2**18))
        held = [x + 1 for _ in range(LITTLE // 2**21)]
        # What is denied first may be a tensor, room for the answer, or something of Python's or C++'s own.
        with pytest.raises(RemoteError, match=r"(?i)memory|bad_alloc"):
            held.extend(x + 1 for _ in range(LITTLE // 2**20))
        held.clear()
        assert (x + 1).shape == x.shape


def test_an_operation_without_end_ends_the_worker() -> None:
    with ProcessWorker("slow", limits=Limits(operation_seconds=0.5)) as slow:
        # All of it: on a machine that is busy enough, what is done first takes too long, too.
        with pytest.raises(WorkerLost, match="longer than its limits allow"):
            slow.send(torch.ones(1)).expand(2**40).sum()
        assert not slow.alive


def test_programs_have_a_clock_of_their_own(tmp_path: Path) -> None:
    limits = Limits(operation_seconds=1000, program_seconds=0.5)
    worker = ProcessWorker("slow", programs=[PROGRAMS], limits=limits)
    with worker as slow, pytest.raises(WorkerLost, match="longer than its limits allow"):
        slow.run(sleep_long, str(tmp_path / "begun"))


def test_limits_that_cannot_be_kept_are_refused() -> None:
    with pytest.raises(ValueError, match="operation_seconds=0 is not positive"):
        Limits(operation_seconds=0)
    with HostProcess() as process, pytest.raises(ValueError, match="belong to the process"):
        ProcessWorker("bob", process=process, limits=Limits(memory_bytes=LITTLE))
