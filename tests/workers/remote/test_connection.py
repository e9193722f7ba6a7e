"""Each request gets its own answer, whoever waits for it, and whatever interrupts the waiting."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread
from typing import Any

import pytest

from fedlightning.workers import HostProcess, WorkerLost
from fedlightning.workers.remote import ProcessWorker
from fedlightning.workers.remote.channel import Channel
from fedlightning.workers.remote.codecs.packing import Surroundings
from fedlightning.workers.remote.connection import Connection, Pipeline
from fedlightning.workers.remote.errors import BrokenChannelError
from fedlightning.workers.remote.frames import Incoming, encode
from fedlightning.workers.remote.protocol import Answered
from tests.workers.conftest import IN_ONE_PROCESS

PATIENCE = 60  # seconds; only a failure waits that long
LIMIT = 2**20


class Worker:
    """The other end of a connection, which answers what it is told to."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._channel = Channel(theirs, LIMIT)
        self.explained: list[BrokenChannelError] = []
        self.connection = Connection(Channel(ours, LIMIT), Surroundings(), "bob", self.explain)

    def explain(self, error: BrokenChannelError) -> str:
        self.explained.append(error)
        return "it has gone"

    def answer(self, *values: Any) -> None:
        """Answer, and go: who waits for more than that gets an error instead of waiting for ever."""
        for value in values:
            self._channel.send(encode(Answered(value), Surroundings()))
        self._channel.shut_down()


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the first answer that is read be interrupted by a Ctrl-C."""
    decode, interrupts = Incoming.decode, [KeyboardInterrupt]

    def interrupting(incoming: Incoming, surroundings: Surroundings) -> Any:
        if interrupts:
            raise interrupts.pop()
        return decode(incoming, surroundings)

    monkeypatch.setattr(Incoming, "decode", interrupting)


@pytest.mark.usefixtures("interrupted")
@pytest.mark.parametrize("pipeline", [None, Pipeline(1)], ids=["each waited for", "in a pipeline"])
def test_an_interrupt_does_not_give_an_answer_to_another_request(
    worker: Worker, pipeline: Pipeline | None
) -> None:
    first, second, third = (worker.connection.request(number, pipeline) for number in range(3))
    worker.connection._flush()
    worker.answer("first", "second", "third")
    with pytest.raises(KeyboardInterrupt):
        first.wait()
    assert second.wait() == "second"
    assert first.wait() == "first"
    assert third.wait() == "third"


@pytest.mark.usefixtures("interrupted")
def test_after_an_interrupt_nobody_waits_for_what_has_come(worker: Worker) -> None:
    only = worker.connection.request("x")
    worker.answer("only")
    with pytest.raises(KeyboardInterrupt):
        only.wait()
    worker.connection.receive_all()
    assert worker.explained == []
    assert only.wait() == "only"


def test_an_interrupt_amid_bad_news_does_not_leave_anybody_waiting(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = worker.connection.request(1), worker.connection.request(2)
    failure, interrupts = worker.connection._failure, [KeyboardInterrupt]

    def interrupting() -> Any:
        if interrupts:
            raise interrupts.pop()
        return failure()

    monkeypatch.setattr(worker.connection, "_failure", interrupting)
    worker.answer()
    with pytest.raises(KeyboardInterrupt):
        first.wait()
    for pending in (first, second):
        with pytest.raises(WorkerLost, match="it has gone"):
            pending.wait()


def test_two_threads_that_wait_for_one_answer_get_the_same(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, reading, other_waits, got = Incoming.decode, Event(), Event(), []

    def slow(incoming: Incoming, surroundings: Surroundings) -> Any:
        reading.set()
        assert other_waits.wait(PATIENCE)
        return decode(incoming, surroundings)

    monkeypatch.setattr(Incoming, "decode", slow)
    pending = worker.connection.request("x", Pipeline(1))
    worker.connection._flush()
    worker.answer(["an answer"])

    def wait_as_well() -> None:
        assert reading.wait(PATIENCE)
        other_waits.set()
        got.append(pending.wait())

    other = Thread(target=wait_as_well)
    other.start()
    got.append(pending.wait())
    other.join()
    assert got[0] is got[1]


def test_what_is_to_be_done_after_an_answer_is_done_if_another_thread_has_received_it(worker: Worker) -> None:
    early, late = worker.connection.request(1), worker.connection.request(2)
    worker.answer("early", "late")
    late.wait()
    called: list[str] = []
    early.once_done(lambda: called.append("done"))
    assert called == ["done"]


@pytest.fixture
def hurried() -> Iterator[None]:
    """Let threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@IN_ONE_PROCESS
@pytest.mark.usefixtures("hurried")
def test_threads_may_open_workers_in_one_process_at_once(host_process: HostProcess) -> None:
    def open_some(thread: int) -> list[Any]:
        workers = [ProcessWorker(f"{thread} {number}", process=host_process) for number in range(8)]
        return [worker.send([worker.id]).get() for worker in workers]

    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(open_some, range(4)))
    assert opened == [[[f"{thread} {number}"] for number in range(8)] for thread in range(4)]
