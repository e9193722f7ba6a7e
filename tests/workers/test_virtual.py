"""A worker in this process: nothing but tensors is copied, and objects go at once."""

from __future__ import annotations

import pytest

from fedlightning.pointers.messages import Delete
from fedlightning.workers import RemoteError, Reply, VirtualWorker, Worker
from tests.workers.programs import count, fail


def test_an_object_is_sent_and_fetched_without_copying() -> None:
    bob, value = VirtualWorker(id="bob"), [1, 2]
    pointer = bob.send(value)
    assert bob._objects == {pointer.id_at_location: value}
    assert bob.get(pointer) is value


def test_objects_go_at_once_with_their_last_pointer() -> None:
    bob = VirtualWorker(id="bob")
    pointer = bob.send([1])
    del pointer
    assert repr(bob) == "<VirtualWorker id:bob #objects:0>"
    assert bob._objects == {}


def test_the_traceback_of_a_program_that_raised_has_its_frames() -> None:
    with pytest.raises(RemoteError) as info:
        VirtualWorker(id="bob").run(fail)
    assert info.value.__cause__ is not None
    frames = []
    traceback = info.value.__cause__.__traceback__
    while traceback is not None:
        frames.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert frames[-1] == "fail"


class QueueingWorker(VirtualWorker):
    """Learns of released objects as a remote worker does: before the next message."""

    release = Worker.release

    def submit(self, message: Delete) -> Reply:
        self.drain_released()
        return super().submit(message)


def test_released_objects_are_dropped_before_the_next_message() -> None:
    worker = QueueingWorker(id="far")
    pointers = [worker.send([number]) for number in range(3)]
    del pointers[:]
    assert len(worker) == 3
    worker.run(count, [])
    assert len(worker) == 0
