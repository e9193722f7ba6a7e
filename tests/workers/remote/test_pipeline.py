"""In a pipeline nobody waits who does not have to, and what fails names itself."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Thread
from typing import Any

import pytest
import torch

from fedlightning.workers import RemoteError, WorkerLost
from fedlightning.workers.remote import ProcessWorker
from fedlightning.workers.remote.connection import Connection
from tests.workers.conftest import IN_ONE_PROCESS, MakeWorker
from tests.workers.programs import count

pytestmark = IN_ONE_PROCESS


@pytest.fixture
def bob(make_process_worker: MakeWorker) -> ProcessWorker:
    worker = make_process_worker("bob")
    assert isinstance(worker, ProcessWorker)
    # The process has started.
    assert len(worker) == 0
    return worker


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the answers that were waited for."""
    answers: list[int] = []
    receive = Connection._receive
    monkeypatch.setattr(Connection, "_receive", lambda self: (answers.append(1), receive(self))[1])
    return answers


def test_nobody_waits_before_something_is_asked(bob: ProcessWorker, received: list[int]) -> None:
    with bob.pipeline():
        x = bob.send(torch.ones(3, 2, requires_grad=True))
        y = torch.nn.functional.relu(x @ x.t()).sum() * 2
        y.backward()
        assert received == []
        assert y.shape == ()
        assert len(received) == 6
        assert x.shape == (3, 2)
        assert len(received) == 6
        assert x.grad.shape == (3, 2)
    assert torch.equal(y.detach().get(), torch.tensor(36.0))


def test_results_that_are_arguments_can_be_used_on(bob: ProcessWorker) -> None:
    with bob.pipeline():
        x = bob.send(torch.zeros(2, 2))
        same = x.contiguous().to(torch.float32)
        same.add_(1)
        x.mul_(3)
        x[0, 0] = 7
        x += 1
        assert (same.dtype, x.is_leaf) == (torch.float32, True)
    assert torch.equal(x.get(), torch.tensor([[8.0, 4.0], [4.0, 4.0]]))
    assert torch.equal(same.get(), torch.tensor([[8.0, 4.0], [4.0, 4.0]]))


def test_what_is_changed_in_place_is_described_anew(bob: ProcessWorker) -> None:
    weight = bob.send(torch.ones(2, requires_grad=True))
    x = bob.send(torch.ones(2))
    with bob.pipeline():
        x.mul_(weight)
        x.unsqueeze_(0)
        assert x.requires_grad
        assert not x.is_leaf
        assert x.shape == (1, 2)


def test_a_failure_names_its_operation_and_nothing_after_it_is_done(bob: ProcessWorker) -> None:
    x = bob.send(torch.ones(2))

    def work() -> None:
        with bob.pipeline():
            bad = x.view(7)
            worse = bad + 1
            x.add_(1)
            for ask in (worse.dim, x.get, lambda: bob.run(count, [1])):
                with pytest.raises(RemoteError, match=r"torch\.Tensor\.view raised"):
                    ask()

    with pytest.raises(RemoteError, match=r"torch\.Tensor\.view raised RuntimeError at worker 'bob'"):
        work()
    assert bob.run(count, [1]) == 1
    # Whoever asks later gets the same answer; the object itself was not touched.
    with pytest.raises(RemoteError, match=r"torch\.Tensor\.view raised"):
        assert x.requires_grad
    assert torch.equal(x.get(), torch.ones(2))


def test_an_error_of_the_users_own_is_not_covered_up(bob: ProcessWorker) -> None:
    x = bob.send(torch.ones(2))

    def work() -> None:
        with bob.pipeline():
            x.view(7)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert torch.equal((x + 1).get(), torch.full((2,), 2.0))


def test_no_object_is_left_behind(bob: ProcessWorker) -> None:
    with bob.pipeline():
        x = bob.send(torch.ones(3))
        for _ in range(600):
            y = (x + 1).view(3, 1).contiguous()
            y.mul_(2)
    del x, y
    gc.collect()
    assert len(bob) == 0


def test_a_worker_that_dies_in_a_pipeline_is_lost_at_its_end() -> None:
    with ProcessWorker("bob") as bob:
        x = bob.send(torch.ones(2))

        def work() -> None:
            with bob.pipeline():
                y = x + 1
                os.kill(bob.process.pid, signal.SIGKILL)
                for _ in range(50):
                    y = y + 1

        with pytest.raises(WorkerLost, match="signal 9"):
            work()


def in_another_thread(work: Callable[[], None]) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()


def test_other_threads_wait_for_their_own_answers(bob: ProcessWorker) -> None:
    x, results = bob.send(torch.ones(2)), []

    def fail() -> None:
        with pytest.raises(RemoteError, match="view"):
            x.view(7)
        results.append(x + 1)

    with bob.pipeline():
        y = x * 3
        in_another_thread(fail)
        assert "_promised" in y.__dict__
        assert "_promised" not in results[0].__dict__
    assert torch.equal((results[0] + y).get(), torch.full((2,), 5.0))


def test_a_failure_in_another_thread_does_not_mend_a_broken_pipeline(bob: ProcessWorker) -> None:
    x = bob.send(torch.ones(2))

    def fail() -> None:
        with pytest.raises(RemoteError, match="reshape"):
            x.reshape(7)

    def work() -> None:
        with bob.pipeline():
            x.view(7)
            in_another_thread(fail)
            x.add_(1)

    with pytest.raises(RemoteError, match="view"):
        work()
    assert torch.equal(x.get(), torch.ones(2))


def test_two_threads_may_ask_one_promised_tensor_for_its_shape(bob: ProcessWorker) -> None:
    shapes: list[Any] = []

    class Together:
        """The answer, which both have received before either goes on."""

        def __init__(self, answer: Any) -> None:
            self._answer, self._barrier = answer, Barrier(2, timeout=60)

        def wait(self) -> Any:
            description = self._answer.wait()
            self._barrier.wait()
            return description

    with bob.pipeline():
        y = bob.send(torch.ones(3, 2)) + 1
        known, answer = y._promised
        y._promised = (known, Together(answer))
        threads = [Thread(target=lambda: shapes.append(y.shape)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert shapes == [(3, 2), (3, 2)]


def test_pipelines_are_not_nested(bob: ProcessWorker) -> None:
    with bob.pipeline(), pytest.raises(RuntimeError, match="already"), bob.pipeline():
        pass
