"""What every worker does: it holds objects, runs programs on them, and lets out what its policy allows."""

from __future__ import annotations

import copy
import gc
import traceback
import weakref
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from fedlightning.pointers import MixedLocationsError, ObjectPointer, PointerTensor, StalePointerError
from fedlightning.pointers.messages import Execute, Message, Put, Run
from fedlightning.workers import (
    Allow,
    AtLeast,
    Deny,
    KeepData,
    RefusedByPolicy,
    RemoteError,
    Rules,
    Worker,
    check_unique_ids,
    in_round,
)
from tests.workers.conftest import MakeWorker
from tests.workers.programs import count, fail, fit, reveal, step


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


@pytest.fixture
def recorded(bob: Worker, monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    messages: list[Message] = []
    submit = bob.submit
    monkeypatch.setattr(bob, "submit", lambda message: (messages.append(message), submit(message))[1])
    return messages


def test_a_worker_tells_its_name_and_what_it_holds(bob: Worker) -> None:
    assert bob  # although it is empty
    assert repr(bob) == f"<{type(bob).__name__} id:bob #objects:0>"
    pointer = bob.send([1])
    assert len(bob) == 1
    assert repr(pointer) == f"[ObjectPointer | me:{pointer.id} -> bob:{pointer.id_at_location}: list]"


@pytest.mark.parametrize(
    "value", [[1, (2.5, None)], {"a": {1, 2}}, "text", b"bytes", 3 + 4j, slice(1, None), torch.float16]
)
def test_plain_values_go_and_come_back(bob: Worker, value: Any) -> None:
    pointer = bob.send(value, tags=("#x",), description="a value")
    assert isinstance(pointer, ObjectPointer)
    assert (pointer.type_name, pointer.tags, pointer.description) == (
        type(value).__name__,
        ("#x",),
        "a value",
    )
    assert pointer.get() == value
    assert len(bob) == 0


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(2, 3),
        torch.randn(2, 3).t(),
        torch.randn(4, 6)[::2, 1::2],
        torch.randn(3, 1).expand(3, 5),
        torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.tensor(7),
        torch.empty(0, 3),
        torch.tensor([True, False]),
        torch.randn(3, dtype=torch.complex64).conj(),
        torch.randn(5).to(torch.bfloat16),
        torch.randn(5).to(torch.float8_e4m3fn),
    ],
    ids=lambda tensor: f"{tensor.dtype}{tuple(tensor.shape)}",
)
def test_tensors_go_and_come_back(bob: Worker, tensor: torch.Tensor) -> None:
    back = bob.send(tensor).get()
    assert (back.dtype, back.shape, back.stride()) == (tensor.dtype, tensor.shape, tensor.clone().stride())
    assert torch.equal(back.to(torch.complex64), tensor.to(torch.complex64))
    assert type(back) is torch.Tensor


def test_what_is_sent_is_a_copy(bob: Worker) -> None:
    tensor = torch.zeros(2)
    pointer = bob.send(tensor)
    tensor.add_(1)
    pointer.add_(5)
    assert torch.equal(tensor, torch.ones(2))
    assert torch.equal(pointer.get(), torch.full((2,), 5.0))


def test_gradients_travel_with_their_tensor(bob: Worker) -> None:
    tensor = torch.ones(2, requires_grad=True)
    tensor.square().sum().backward()
    pointer = bob.send(tensor)
    assert pointer.requires_grad
    pointer.sum().backward()
    assert torch.equal(pointer.grad.clone().get(), torch.full((2,), 3.0))
    back = pointer.get()
    assert back.requires_grad
    assert torch.equal(back.grad, torch.full((2,), 3.0))


def test_modules_and_optimizers_come_back_as_the_objects_they_were(bob: Worker) -> None:
    module = small_network()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    parameters = list(module.parameters())
    pointers = bob.send(module), bob.send(optimizer)
    assert pointers[0].type_name == "Sequential"
    assert bob.get(pointers[1]) is optimizer
    assert bob.get(pointers[0]) is module
    assert all(new is old for new, old in zip(module.parameters(), parameters, strict=True))
    assert len(bob) == 0


def test_objects_that_nobody_else_refers_to_come_back(bob: Worker) -> None:
    assert bob.send(nn.Linear(2, 3)).get().out_features == 3
    assert bob.send([nn.Linear(2, 3)]).get()[0].out_features == 3
    assert bob.start(reveal, nn.Linear(2, 3)).get().out_features == 3
    assert bob.run(fit, nn.Linear(1, 1), torch.ones(1)).out_features == 1
    assert len(bob) == 0


def test_what_is_at_no_worker_any_more_is_not_kept(bob: Worker) -> None:
    gone = []
    for end in (lambda pointer: pointer.get(), bob.delete, lambda pointer: None):
        module = nn.Linear(2, 2)
        gone.append(weakref.ref(module))
        end(bob.send(module))
    del module
    bob.run(count, [])
    gc.collect()
    assert [reference() for reference in gone] == [None] * 3


def test_programs_get_objects_in_place_of_pointers(bob: Worker) -> None:
    three, two = bob.send([1, 2, 3]), bob.send(torch.ones(2))
    assert bob.run(count, three, more={"x": two}) == 5
    assert bob.run("tests.workers.programs:count", [7]) == 1
    kept = bob.start(reveal, two)
    assert isinstance(kept, PointerTensor)
    assert torch.equal((kept + 1).get(), torch.full((2,), 2.0))


def test_one_message_per_program_and_each_of_its_round(bob: Worker, recorded: list[Message]) -> None:
    with in_round(4):
        bob.run(count, bob.send([1]))
    assert [(type(message), message.round) for message in recorded] == [(Put, 4), (Run, 4)]


def test_programs_train_a_module_with_the_bits_of_local_training(bob: Worker) -> None:
    batches = torch.randn(5, 6, 3, generator=torch.Generator().manual_seed(1))
    local, sent = small_network(), small_network()
    losses = []
    for module, at_worker in ((local, False), (sent, True)):
        optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
        pointers = (bob.send(module), bob.send(optimizer)) if at_worker else (module, optimizer)
        losses.append(
            [bob.run(step, *pointers, batch) if at_worker else step(*pointers, batch) for batch in batches]
        )
        if at_worker:
            bob.get(pointers[1])
            bob.get(pointers[0])
            # The state is there, and belongs to the same parameters: training goes on here.
            step(module, optimizer, batches[0])
        else:
            step(module, optimizer, batches[0])
    assert losses[0] == losses[1]
    for name, value in local.state_dict().items():
        assert torch.equal(value, sent.state_dict()[name]), name


def test_momentum_survives_the_way_from_worker_to_worker(make_worker: MakeWorker) -> None:
    bob, alice = make_worker("bob"), make_worker("alice")
    batch = torch.ones(2, 3)
    local, sent = small_network(), small_network()
    optimizers = [torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9) for module in (local, sent)]
    for worker in (bob, alice, bob):
        step(local, optimizers[0], batch)
        module, optimizer = worker.send(sent), worker.send(optimizers[1])
        worker.run(step, module, optimizer, batch)
        worker.get(optimizer)
        worker.get(module)
    for one, other in zip(local.parameters(), sent.parameters(), strict=True):
        assert torch.equal(one, other)
        assert torch.equal(
            optimizers[0].state[one]["momentum_buffer"], optimizers[1].state[other]["momentum_buffer"]
        )


def test_op_by_op_training_has_the_bits_of_local_training(bob: Worker) -> None:
    batch = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    local, sent = small_network(), small_network()
    for module, at_worker in ((local, False), (sent, True)):
        optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
        inputs = bob.send(batch) if at_worker else batch
        if at_worker:
            module.send(bob)
        for _ in range(3):
            optimizer.zero_grad()
            module(inputs).square().sum().backward()
            optimizer.step()
        if at_worker:
            module.get()
    for name, value in local.state_dict().items():
        assert torch.equal(value, sent.state_dict()[name]), name
    del optimizer, inputs
    gc.collect()
    assert len(bob) == 0


def test_a_pipeline_changes_nothing_but_the_waiting(bob: Worker) -> None:
    batch = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    local, sent = small_network(), small_network()
    losses = []
    with bob.pipeline():
        for module, at_worker in ((local, False), (sent, True)):
            inputs = bob.send(batch) if at_worker else batch
            if at_worker:
                module.send(bob)
            optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
            for _ in range(3):
                optimizer.zero_grad()
                loss = module(inputs).square().sum()
                loss.backward()
                optimizer.step()
            losses.append(loss.get() if at_worker else loss.detach())
    sent.get()
    assert torch.equal(*losses)
    for name, value in local.state_dict().items():
        assert torch.equal(value, sent.state_dict()[name]), name
    del loss, optimizer, inputs
    gc.collect()
    assert len(bob) == 0


def test_operations_with_several_results_and_with_keywords(bob: Worker) -> None:
    x = torch.randn(4, 3)
    pointer = bob.send(x)
    values, indices = pointer.max(dim=1, keepdim=True)
    assert torch.equal(values.get(), x.max(dim=1, keepdim=True).values)
    assert torch.equal(indices.get(), x.max(dim=1, keepdim=True).indices)
    assert torch.equal(
        torch.cat([pointer, pointer[1:, :2].repeat(1, 2)[:, :3]]).sum().get(),
        torch.cat([x, x[1:, :2].repeat(1, 2)[:, :3]]).sum(),
    )
    assert torch.equal(pointer.to(torch.float64).mean(0).get(), x.to(torch.float64).mean(0))
    assert torch.equal(pointer, pointer)


def test_objects_go_with_their_last_pointer(bob: Worker) -> None:
    pointer = bob.send([1])
    also = copy.copy(pointer)
    del pointer
    assert len(bob) == 1
    del also
    assert len(bob) == 0


def test_no_object_is_left_behind_by_computing_and_by_errors(bob: Worker) -> None:
    x = bob.send(torch.ones(3, requires_grad=True))
    for _ in range(20):
        ((x * 2).view(3, 1) + 1).sum().backward()
        with pytest.raises(RemoteError):
            x.view(7)
    del _
    gc.collect()
    assert len(bob) == 1


def test_registered_objects_stay_and_are_found_by_their_tags(bob: Worker) -> None:
    data = TensorDataset(torch.ones(3, 2))
    bob.register(data, owner="hospital", tags=("#x", "#train"), description="scans")
    (found,) = bob.search("#x")
    assert (found.type_name, found.tags, found.description) == ("TensorDataset", ("#x", "#train"), "scans")
    assert bob.search("#x", "#test") == []
    assert bob.run(count, found) == 3
    bob.delete(found)
    assert len(bob) == 0


def test_a_registered_object_that_is_not_kept_goes_with_its_last_pointer(bob: Worker) -> None:
    pointer = bob.register(TensorDataset(torch.ones(3, 2)), keep=False)
    assert bob.run(count, pointer) == 3
    del pointer
    assert len(bob) == 0


def test_fetching_and_deleting_twice_are_errors(bob: Worker) -> None:
    fetched, deleted = bob.send([1]), bob.send([2])
    bob.get(fetched)
    bob.delete(deleted)
    with pytest.raises(StalePointerError, match="fetched"):
        fetched.get()
    with pytest.raises(StalePointerError, match="deleted"):
        bob.run(count, deleted)


def test_pointers_of_another_worker_are_refused(bob: Worker, make_worker: MakeWorker) -> None:
    pointer = make_worker("alice").send([1])
    with pytest.raises(MixedLocationsError, match=r"at 'alice', but is used at 'bob'.*\.send\(bob\)"):
        bob.run(count, [pointer])
    with pytest.raises(ValueError, match="'alice'"):
        bob.get(pointer)
    with pytest.raises(ValueError, match="no pointer"):
        bob.get(3)


def test_private_data_stays_and_modules_leave(make_worker: MakeWorker) -> None:
    worker = make_worker("bob", policy=KeepData())
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


def test_what_is_written_from_private_data_is_private(make_worker: MakeWorker) -> None:
    worker = make_worker("bob", policy=KeepData())
    data, own = worker.register(torch.ones(2)), worker.send(torch.zeros(2))
    own.add_(data)
    with pytest.raises(RefusedByPolicy):
        own.get()


def test_only_the_average_leaves_a_trusted_aggregator(make_worker: MakeWorker) -> None:
    rules = Rules(Allow(kinds=("data",), to=("trusted",)), AtLeast(2))
    bob, alice, trusted = (make_worker(name, policy=rules) for name in ("bob", "alice", "trusted"))
    one, three = bob.register(torch.full((2,), 1.0)), alice.register(torch.full((2,), 3.0))
    with pytest.raises(RefusedByPolicy, match="only aggregates over 2"):
        one.get()
    at_trusted = [pointer.move(trusted) for pointer in (one, three)]
    assert {pointer.location for pointer in at_trusted} == {trusted}
    with pytest.raises(RefusedByPolicy, match="only aggregates over 2"):
        at_trusted[0].get()
    assert torch.equal(torch.stack(at_trusted).mean(0).get(), torch.full((2,), 2.0))
    assert [entry.to for entry in bob.ledger.entries if entry.direction == "sent"] == ["trusted"]


def test_the_owners_rules_are_followed(make_worker: MakeWorker) -> None:
    worker = make_worker(
        "bob", policy=Rules(Deny(tags=("#genome",)), Allow(kinds=("data",), owners=("charite",)))
    )
    genome = worker.register(torch.ones(2), owner="charite", tags=("#genome",))
    scan = worker.register(torch.ones(2), owner="charite", tags=("#scan",))
    with pytest.raises(RefusedByPolicy, match="denied by the owner"):
        (scan + genome).get()
    assert torch.equal((scan + scan).get(), torch.full((2,), 2.0))


def test_of_private_data_an_exception_says_nothing(make_worker: MakeWorker) -> None:
    worker = make_worker("bob", policy=KeepData())
    data = worker.register(torch.tensor([10, 123456]))
    with pytest.raises(RemoteError, match="withheld") as info:
        torch.gather(worker.send(torch.ones(11)), 0, data)
    assert "123456" not in str(info.value)
    assert info.value.__cause__ is None


def test_the_ledger_has_all_that_left_and_came(bob: Worker) -> None:
    with in_round(3):
        assert bob.send(torch.ones(4)).get().numel() == 4
    assert bob.ledger.of_round(3) == (16, 16)
    assert (bob.ledger.sent_bytes, bob.ledger.received_bytes) == (16, 16)
    assert {(entry.direction, entry.item, entry.to) for entry in bob.ledger.entries} == {
        ("received", "Tensor", "bob"),
        ("sent", "Tensor", "controller"),
    }
    assert "everything may leave" in str(bob.ledger)


def test_a_program_that_raises_tells_worker_and_keeps_the_traceback(bob: Worker) -> None:
    with pytest.raises(
        RemoteError, match=r"fail.*raised ZeroDivisionError at worker 'bob': by design"
    ) as info:
        bob.run(fail)
    assert info.value.worker == "bob"
    assert isinstance(info.value.__cause__, ZeroDivisionError)
    assert 'raise ZeroDivisionError("by design")' in "".join(traceback.format_exception(info.value))


def test_unknown_programs_and_operations_are_refused(bob: Worker) -> None:
    for name in ("os:system", "tests.workers.programs:threading", "fedlightning.data:nothing"):
        with pytest.raises(RefusedByPolicy, match=rf"'{name}'.*not registered"):
            bob.run(name, "true")
    with pytest.raises(ValueError, match="not a program"):
        bob.run(len, [])
    for name in ("torch.load", "torch.Tensor.data_ptr", "torch.set_default_dtype", "os.system"):
        with pytest.raises(RefusedByPolicy, match="allow-list"):
            bob.submit(Execute(name, (), {}, (1,))).wait()


def test_an_identifier_is_not_overwritten(bob: Worker) -> None:
    bob.submit(Put(7, "first", ("#it",))).wait()
    with pytest.raises(RemoteError, match="exists already"):
        bob.submit(Put(7, "second")).wait()
    (found,) = bob.search("#it")
    assert bob.get(found) == "first"


def test_submitting_does_not_raise_but_waiting_does(bob: Worker) -> None:
    reply = bob.submit(Run("nowhere:nothing", (), {}, False, 0))
    with pytest.raises(RefusedByPolicy):
        reply.wait()


@pytest.mark.parametrize("bad", ["", None, 3])
def test_a_worker_needs_a_name(make_worker: MakeWorker, bad: Any) -> None:
    with pytest.raises(ValueError, match="id="):
        make_worker(bad)


def test_workers_of_one_name_do_not_work_together(make_worker: MakeWorker) -> None:
    first, second = make_worker("twin"), make_worker("twin")
    assert second.generation == first.generation + 1
    with pytest.raises(ValueError, match=r"two workers with id='twin'.*its own id"):
        check_unique_ids([first, make_worker("other"), second])
    check_unique_ids([first, make_worker("other")])
    with pytest.raises(MixedLocationsError, match="earlier worker"):
        second.run(count, first.send([1]))
    with pytest.raises(MixedLocationsError, match="made again"):
        first.send(torch.ones(1)) + second.send(torch.ones(1))


def test_a_worker_is_never_copied(bob: Worker) -> None:
    assert copy.deepcopy([bob])[0] is bob
