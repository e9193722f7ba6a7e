"""A worker holds objects, runs programs on them, and lets out what its policy allows."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from fedlightning.pointers import MixedLocationsError, ObjectPointer, PointerTensor, StalePointerError
from fedlightning.pointers.messages import Execute, Message, Put, Run
from fedlightning.workers import (
    KeepData,
    RefusedByPolicy,
    RemoteError,
    Reply,
    VirtualWorker,
    Worker,
    check_unique_ids,
    in_round,
    program,
)


class RecordingWorker(VirtualWorker):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.messages: list[Message] = []

    def submit(self, message: Message) -> Reply:
        self.messages.append(message)
        return super().submit(message)


@program(returns="metrics")
def count(samples: Any, *, more: dict[str, Any] | None = None) -> int:
    return len(samples) + sum(map(len, (more or {}).values()))


@program(returns="data")
def reveal(samples: Any) -> Any:
    return samples


@program(returns="module")
def fit(module: nn.Module, samples: torch.Tensor) -> nn.Module:
    with torch.no_grad():
        module.weight.add_(samples.sum())
    return module


@program(returns="metrics")
def fail() -> None:
    raise ZeroDivisionError("by design")


@pytest.fixture
def bob() -> VirtualWorker:
    return VirtualWorker(id="bob")


def test_an_object_is_sent_and_fetched_without_copying(bob: VirtualWorker) -> None:
    module = nn.Linear(1, 1)
    pointer = bob.send(module, tags=("#model",))
    assert isinstance(pointer, ObjectPointer)
    assert repr(pointer) == f"[ObjectPointer | me:{pointer.id} -> bob:{pointer.id_at_location}: Linear]"
    assert bob.get(pointer) is module
    assert len(bob) == 0


def test_programs_get_objects_in_place_of_pointers(bob: VirtualWorker) -> None:
    three, two = bob.send([1, 2, 3]), bob.send(torch.ones(2))
    assert bob.run(count, three, more={"x": two}) == 5
    assert bob.run("tests.workers.test_worker:count", [7]) == 1
    kept = bob.start(reveal, two)
    assert isinstance(kept, PointerTensor)
    assert torch.equal((kept + 1).get(), torch.full((2,), 2.0))


def test_one_message_per_program() -> None:
    worker = RecordingWorker(id="bob")
    with in_round(4):
        worker.run(count, worker.send([1]))
    assert [(type(message), message.round) for message in worker.messages] == [(Put, 4), (Run, 4)]
    assert not any(isinstance(message, Execute) for message in worker.messages)


def test_objects_go_with_their_last_pointer(bob: VirtualWorker) -> None:
    pointer = bob.send([1])
    also = copy.copy(pointer)
    del pointer
    assert len(bob) == 1
    del also
    assert repr(bob) == "<VirtualWorker id:bob #objects:0>"


def test_registered_objects_stay_and_are_found_by_their_tags(bob: VirtualWorker) -> None:
    data = TensorDataset(torch.ones(3, 2))
    bob.register(data, owner="hospital", tags=("#x", "#train"), description="scans")
    (found,) = bob.search("#x")
    assert (found.type_name, found.tags, found.description) == ("TensorDataset", ("#x", "#train"), "scans")
    assert bob.search("#x", "#test") == []
    assert bob.run(count, found) == 3
    bob.delete(found)
    assert len(bob) == 0


def test_fetching_and_deleting_twice_are_errors(bob: VirtualWorker) -> None:
    fetched, deleted = bob.send([1]), bob.send([2])
    bob.get(fetched)
    bob.delete(deleted)
    with pytest.raises(StalePointerError, match="fetched"):
        fetched.get()
    with pytest.raises(StalePointerError, match="deleted"):
        bob.run(count, deleted)


def test_pointers_of_another_worker_are_refused(bob: VirtualWorker) -> None:
    pointer = VirtualWorker(id="alice").send([1])
    with pytest.raises(MixedLocationsError, match=r"at 'alice', but is used at 'bob'.*\.send\(bob\)"):
        bob.run(count, [pointer])
    with pytest.raises(ValueError, match="'alice'"):
        bob.get(pointer)
    with pytest.raises(ValueError, match="no pointer"):
        bob.get(3)


def test_private_data_stays_and_modules_leave() -> None:
    worker = VirtualWorker(id="bob", policy=KeepData())
    data = worker.register(torch.full((2,), 3.0), tags=("#scans",))
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 0.5)
    with pytest.raises(RefusedByPolicy, match=r"object \d+ .* leave: private data stays .*KeepData"):
        data.get()
    with pytest.raises(RefusedByPolicy, match="reveal"):
        worker.run(reveal, data)
    with pytest.raises(RefusedByPolicy):
        (data * 2).get()
    with pytest.raises(RefusedByPolicy):
        torch.equal(data, data)
    assert worker.run(count, data) == 2
    assert worker.run(fit, worker.send(module), data) is module
    assert module.weight.item() == 6.5
    assert torch.equal(worker.send(torch.ones(1)).get(), torch.ones(1))
    assert data.shape == (2,)


def test_what_is_written_from_private_data_is_private() -> None:
    worker = VirtualWorker(id="bob", policy=KeepData())
    data, own = worker.register(torch.ones(2)), worker.send(torch.zeros(2))
    own.add_(data)
    with pytest.raises(RefusedByPolicy):
        own.get()


def test_a_program_that_raises_tells_worker_and_keeps_the_traceback(bob: VirtualWorker) -> None:
    with pytest.raises(
        RemoteError, match=r"fail.*raised ZeroDivisionError at worker 'bob': by design"
    ) as info:
        bob.run(fail)
    assert info.value.worker == "bob"
    frames = []
    traceback = info.value.__cause__.__traceback__
    while traceback is not None:
        frames.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert frames[-1] == "fail"


def test_unknown_programs_and_operations_are_refused(bob: VirtualWorker) -> None:
    with pytest.raises(RefusedByPolicy, match=r"'os:system'.*not registered"):
        bob.run("os:system", "true")
    with pytest.raises(ValueError, match="not a program"):
        bob.run(len, [])
    for name in ("torch.load", "torch.Tensor.data_ptr", "torch.set_default_dtype", "os.system"):
        with pytest.raises(RefusedByPolicy, match="allow-list"):
            bob.submit(Execute(name, (), {}, (1,))).wait()


def test_an_identifier_is_not_overwritten(bob: VirtualWorker) -> None:
    bob.submit(Put(7, "first")).wait()
    with pytest.raises(RemoteError, match="exists already"):
        bob.submit(Put(7, "second")).wait()
    assert bob._objects == {7: "first"}


def test_submitting_does_not_raise_but_waiting_does(bob: VirtualWorker) -> None:
    reply = bob.submit(Run("nowhere:nothing", (), {}, False, 0))
    with pytest.raises(RefusedByPolicy):
        reply.wait()


@pytest.mark.parametrize("bad", ["", None, 3])
def test_a_worker_needs_a_name(bad: Any) -> None:
    with pytest.raises(ValueError, match="id="):
        VirtualWorker(id=bad)


def test_workers_of_one_name_do_not_work_together() -> None:
    first, second = VirtualWorker(id="twin"), VirtualWorker(id="twin")
    assert second.generation == first.generation + 1
    with pytest.raises(ValueError, match=r"two workers with id='twin'.*its own id"):
        check_unique_ids([first, VirtualWorker(id="other"), second])
    check_unique_ids([first, VirtualWorker(id="other")])
    with pytest.raises(MixedLocationsError, match="earlier worker"):
        second.run(count, first.send([1]))


class QueueingWorker(VirtualWorker):
    """Learns of released objects as a remote worker does: before the next message."""

    release = Worker.release

    def submit(self, message: Message) -> Reply:
        self.drain_released()
        return super().submit(message)


def test_released_objects_are_dropped_before_the_next_message() -> None:
    worker = QueueingWorker(id="far")
    pointers = [worker.send([number]) for number in range(3)]
    del pointers[:]
    assert len(worker) == 3
    worker.run(count, [])
    assert len(worker) == 0


def test_an_empty_worker_is_true_and_is_never_copied(bob: VirtualWorker) -> None:
    assert bob
    assert copy.deepcopy([bob])[0] is bob
