"""What programs take out: they are reviewed, and what they declare is believed. Here is how far that goes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedlightning.pointers import PointerTensor
from fedlightning.workers import KeepData, RefusedByPolicy, RemoteError, VirtualWorker, Worker
from tests.workers.attacks.expecting import VALUES, stays
from tests.workers.programs import append, fit, pretend, reveal, total, write_down


def test_data_stays_however_deep_it_is_given(guard: Worker, secret: Tensor) -> None:
    for argument in (secret, [secret], {"a": (secret, 1)}, secret * 2):
        with stays():
            guard.run(reveal, argument)


def test_a_result_that_is_kept_is_as_private_as_what_it_came_from(guard: Worker, secret: Tensor) -> None:
    for result in (guard.start(total, secret), guard.start(total, secret) * 0, guard.start(reveal, [secret])):
        with stays():
            result.get()


def test_what_a_program_got_beside_private_data_may_hold_some(guard: Worker, secret: Tensor) -> None:
    for keep in (append, write_down):
        holder: Any = guard.send([])
        guard.run(keep, holder, secret)
        with stays():
            holder.get()
        with stays():
            guard.run(reveal, holder)


def test_registered_objects_of_any_type_are_private(guard: Worker) -> None:
    for value in ([1.0, 2.0], {"a": torch.ones(1)}, 3.5):
        with stays():
            guard.register(value).get()


def test_sparse_tensors_are_labelled_by_name() -> None:
    sparse = VirtualWorker(id="bob", policy=KeepData()).register(torch.eye(2).to_sparse())
    with stays():
        sparse.get()
    with stays():
        (sparse.to_dense() + 1).get()


def test_what_the_controller_sent_is_its_own(guard: Worker, secret: Tensor) -> None:
    assert guard.send([1, 2]).get() == [1, 2]
    assert guard.send(torch.ones(2)).add(1).get().tolist() == [2.0, 2.0]


def test_only_registered_programs_run(guard: Worker, secret: PointerTensor) -> None:
    for name in ("builtins:print", "os:system", "torch:save", "tests.workers.programs:os.getpid"):
        with pytest.raises(RefusedByPolicy, match="not registered here"):
            guard.run(name, secret)


def test_limit_a_trained_module_leaves_whatever_it_has_learned(guard: Worker, secret: Tensor) -> None:
    """Under KeepData the kind decides: an update tells of the data, which is why updates are aggregated."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    sent = guard.send(module)
    guard.run(fit, sent, secret)
    assert sent.get().weight.item() == sum(VALUES)


def test_limit_a_program_that_declares_data_as_metrics_is_believed(guard: Worker, secret: Tensor) -> None:
    """Programs must be reviewed: this one gives everything away, and the ledger says how many bytes."""
    assert guard.run(pretend, secret) == VALUES
    (entry,) = [entry for entry in guard.ledger.entries if entry.item.endswith(":pretend")]
    assert (entry.direction, entry.kind) == ("sent", "metrics")
    assert guard.ledger.sent_bytes == 8 * len(VALUES)


def test_limit_whether_something_raised_is_one_bit_and_is_entered(guard: Worker, secret: Tensor) -> None:
    """A controller that asks often enough learns by whether an index was in range."""
    position = secret[2:3].long()

    def is_out_of(size: int) -> bool:
        try:
            guard.send(torch.zeros(size)).index_select(0, position)
        except RemoteError:
            return True
        return False

    assert [is_out_of(size) for size in range(1, 7)].index(False) == VALUES[2]
    withheld = [times for entry, (times, _) in guard.ledger.entries.items() if entry.direction == "withheld"]
    assert withheld == [4]
