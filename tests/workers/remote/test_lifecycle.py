"""A worker process is gone at once and altogether: for who waits, for every pointer, and for the system."""

from __future__ import annotations

import gc
import os
import platform
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fedlightning.workers import ApprovalQueue, Ask, Policy, RemoteError, Rules, WorkerLost
from fedlightning.workers.remote import HostProcess, ProcessWorker, UnsendableError
from tests.workers.conftest import IN_ONE_PROCESS, PROGRAMS, MakeWorker
from tests.workers.programs import (
    count,
    end_by_exit,
    is_here,
    kill_yourself,
    page_faults_of_steps,
    process_id,
    sleep_long,
)

pytestmark = IN_ONE_PROCESS


@pytest.fixture
def mortal() -> Iterator[ProcessWorker]:
    with ProcessWorker("mortal", programs=[PROGRAMS]) as worker:
        yield worker


def assert_lost(worker: ProcessWorker, *pointers: Any, reason: str) -> None:
    for pointer in pointers:
        with pytest.raises(WorkerLost, match=rf"worker process \d+ is lost: .*{reason}.*make a new worker"):
            pointer.get()
    with pytest.raises(WorkerLost, match=reason):
        worker.send([1])
    with pytest.raises(WorkerLost, match=reason):
        len(worker)
    assert repr(worker) == f"<ProcessWorker id:{worker.id} (lost)>"
    assert not worker.alive


def test_killed_while_idle_it_is_lost_for_every_pointer(mortal: ProcessWorker) -> None:
    tensor, other, array = mortal.send(torch.ones(2)), mortal.send([1]), mortal.send(torch.ones(3))
    os.kill(mortal.process.pid, signal.SIGKILL)
    with pytest.raises(WorkerLost) as info:
        tensor + tensor
    assert info.value.worker == "mortal"
    assert_lost(mortal, tensor, other, array, reason="signal 9")
    # Finalizers of pointers meet a dead worker, too, and say nothing.
    del tensor, other, array
    gc.collect()


def test_killed_amid_a_program_it_is_lost_for_who_waits(mortal: ProcessWorker, tmp_path: Path) -> None:
    pointer, begun, errors = mortal.send(torch.ones(2)), tmp_path / "begun", []

    def wait_for_it() -> None:
        try:
            mortal.run(sleep_long, str(begun))
        except WorkerLost as error:
            errors.append(error)

    waiting = threading.Thread(target=wait_for_it)
    waiting.start()
    while not begun.exists():
        time.sleep(0.01)
    os.kill(mortal.process.pid, signal.SIGKILL)
    waiting.join()
    assert "signal 9" in str(errors[0])
    assert_lost(mortal, pointer, reason="signal 9")


def test_dying_amid_a_call_it_is_lost_for_the_caller(mortal: ProcessWorker) -> None:
    pointer = mortal.send(torch.ones(2))
    with pytest.raises(WorkerLost, match="signal 9"):
        mortal.run(kill_yourself)
    assert_lost(mortal, pointer, reason="signal 9")


def test_a_new_worker_of_the_same_name_is_another_one(
    mortal: ProcessWorker, make_process_worker: MakeWorker
) -> None:
    pointer = mortal.send(torch.ones(2))
    mortal.close()
    again = make_process_worker("mortal")
    assert again.generation == mortal.generation + 1
    assert_lost(mortal, pointer, reason="closed")
    assert again.send([1]).get() == [1]


def test_closing_ends_the_process_even_amid_a_program(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    with ProcessWorker("bob", programs=[PROGRAMS]) as bob:
        reply = bob.submit(bob._call(sleep_long, (str(begun),), {}, keep=False))
        while not begun.exists():
            time.sleep(0.01)
    assert not bob.process.alive
    with pytest.raises(WorkerLost, match="it was closed"):
        reply.wait()
    bob.close()


def test_with_the_last_reference_the_process_ends() -> None:
    bob = ProcessWorker("bob")
    pointer = bob.send([1])
    process = bob.process._process
    del bob
    gc.collect()
    assert process.poll() is None
    assert pointer.get() == [1]
    del pointer
    gc.collect()
    assert process.wait() == 0


STARTER = """
import os, signal
from fedlightning.workers.remote import ProcessWorker
bob = ProcessWorker("bob")
bob.send([1])
print("ready", flush=True)
os.kill(os.getpid(), signal.{signal})
"""


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_no_process_outlives_its_starter(name: str) -> None:
    # Output ends when nobody holds its other end any more, and the worker process inherits it.
    done = subprocess.run([sys.executable, "-c", STARTER.format(signal=name)], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("ready\n", -getattr(signal, name))


def test_one_process_holds_many_workers(host_process: HostProcess, make_process_worker: MakeWorker) -> None:
    bob, alice = make_process_worker("bob"), make_process_worker("alice")
    assert bob.run(process_id) == alice.run(process_id) == host_process.pid != os.getpid()
    theirs, own = alice.send([1]), bob.send([2])
    bob.close()
    with pytest.raises(WorkerLost):
        own.get()
    assert alice.run(count, theirs) == 1
    assert len(alice) == 1


def test_of_a_worker_that_nobody_refers_to_nothing_is_left(
    host_process: HostProcess, make_process_worker: MakeWorker
) -> None:
    alice, bob = make_process_worker("alice"), ProcessWorker("bob", process=host_process)
    generation, pointer = bob.generation, bob.send([1])
    assert alice.run(is_here, "bob", generation)
    del bob, pointer
    gc.collect()
    # Connections are served one after the other, and which is first is the system's choice.
    while alice.run(is_here, "bob", generation):
        time.sleep(0.01)


def test_a_program_that_exits_does_not_end_the_process(make_process_worker: MakeWorker) -> None:
    bob = make_process_worker("bob")
    with pytest.raises(RemoteError, match="SystemExit: 3"):
        bob.run(end_by_exit)
    assert bob.run(count, [1]) == 1


def test_a_module_that_cannot_be_imported_there_is_named() -> None:
    with (
        ProcessWorker("bob", programs=["no_such_module"]) as bob,
        pytest.raises(RemoteError, match="no_such_module"),
    ):
        bob.send([1])


@pytest.mark.parametrize("policy", [object(), Rules(Ask(approver=ApprovalQueue()))])
def test_a_policy_that_cannot_be_told_is_refused(host_process: HostProcess, policy: Policy) -> None:
    with pytest.raises(UnsendableError, match=r"policy=|is code|cannot be sent"):
        ProcessWorker("bob", policy=policy, process=host_process)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threads": 0}, "threads=0"),
        ({"programs": "os"}, r"give a list, such as \['os'\]"),
        ({"modules": ["no name"]}, "modules='no name'"),
        ({"modules": ["os.path"]}, "modules='os.path' is of Python's standard library"),
        ({"modules": ["builtins"]}, "modules='builtins' is of Python's standard library"),
    ],
)
def test_settings_are_checked_before_anything_starts(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProcessWorker("bob", **settings)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="others do as they like with freed memory")
def test_memory_that_one_step_has_freed_is_there_for_the_next(mortal: ProcessWorker) -> None:
    pages_of_one_step = 5 * 4_000_000 // resource.getpagesize()
    assert mortal.run(page_faults_of_steps, 10) < pages_of_one_step
