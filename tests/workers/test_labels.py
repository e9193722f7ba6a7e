"""A label is the union over all that went in: for chains of operations, and for each operator of torch."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils._pytree import tree_leaves, tree_map

from fedlightning.pointers import HiddenValueError, MixedLocationsError, PointerTensor
from fedlightning.workers import KeepData, RefusedByPolicy, RemoteError, VirtualWorker
from fedlightning.workers.labels import LabelBook
from fedlightning.workers.policy import PUBLIC, Source
from tests.operators import samples_of
from tests.workers.programs import count

OWNERS = ("ann", "ben", "cem")
COMPUTE = {
    "add": lambda x, y: x + y,
    "matmul": lambda x, y: torch.outer(x, y) @ y,
    "where": lambda x, y: torch.where(x > 0, x, y),
    "cat": lambda x, y: torch.cat([x, y])[:3],
    "stack": lambda x, y: torch.stack([x, y]).sum(0),
    "index": lambda x, y: x[y.long() * 0],
    "out": lambda x, y: torch.mul(x, y, out=x.clone()),
    "norm": lambda x, y: torch.nn.functional.layer_norm(x + y, (3,)),
    "zero": lambda x, y: (x - x) * y,
    "scatter": lambda x, y: x.scatter(0, y.long() * 0, y),
}
WRITE = {
    "add_": lambda x, y: x.add_(y),
    "copy_": lambda x, y: x.copy_(y),
    "into a view": lambda x, y: x[0].add_(y[0]),
    "through data": lambda x, y: x.data.mul_(y),
    "set item": lambda x, y: x.__setitem__(slice(1), y[:1]),
    "foreach": lambda x, y: torch._foreach_add_([x], [y]),
    "out": lambda x, y: torch.add(y, 1, out=x),
}
STEPS = st.lists(
    st.tuples(
        st.sampled_from([*COMPUTE, *(f"write {name}" for name in WRITE), "view"]), *[st.integers(0, 20)] * 2
    ),
    max_size=15,
)


def owners_of(pointer: Any) -> set[str | None]:
    host = pointer.location._host
    return {source.owner for source in host.label_of(pointer.id_at_location)}


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_labels_are_the_union_over_inputs(steps: list[tuple[str, int, int]]) -> None:
    worker = VirtualWorker(id="bob", policy=KeepData())
    pointers = [worker.send(torch.ones(3)), *(worker.register(torch.ones(3), owner=name) for name in OWNERS)]
    # Tensors of one memory share one set, as they should share one label.
    expected: list[set[str]] = [set(), *({name} for name in OWNERS)]
    for step, first, second in steps:
        i, j = first % len(pointers), second % len(pointers)
        if step in COMPUTE:
            pointers.append(COMPUTE[step](pointers[i], pointers[j]))
            expected.append(expected[i] | expected[j])
        elif step == "view":
            pointers.append(pointers[i].view(3))
            expected.append(expected[i])
        elif (name := step.removeprefix("write ")) and pointers[i] is not pointers[j]:
            WRITE[name](pointers[i], pointers[j])
            expected[i].update(expected[j])
    for pointer, names in zip(pointers, expected, strict=True):
        assert owners_of(pointer) == names
        assert (names == set()) == _may_leave(pointer)


def _may_leave(pointer: Tensor) -> bool:
    try:
        (pointer + 0).get()
    except RefusedByPolicy:
        return False
    return True


PARTS = 8
# What they return are the operands themselves or views of them, each as private as its own memory.
RETURN_VIEWS = {
    "atleast_1d", "atleast_2d", "atleast_3d", "broadcast_tensors", "expand_as", "histogramdd", "meshgrid",
    "reshape_as", "view_as",
}  # fmt: skip
NOT_RUN = (RefusedByPolicy, RemoteError, HiddenValueError, MixedLocationsError, AssertionError)


def _calls(part: int) -> Iterator[tuple[str, Any, Any]]:
    for info in op_db[part::PARTS]:
        if torch.float32 in info.dtypes:
            sample = next(samples_of(info), None)
            if sample is not None:
                yield info.name, info.op, (sample.input, sample.args, sample.kwargs)


@pytest.mark.parametrize("part", range(PARTS))
def test_of_every_operators_results(part: int) -> None:
    """Register each operand under an owner of its own; results must carry them all."""
    run, missing = 0, {}
    for name, function, arguments in _calls(part):
        worker, held = VirtualWorker(id="bob", policy=KeepData()), []

        def register(value: Any, worker: VirtualWorker = worker, held: list[Any] = held) -> Any:
            if type(value) is not Tensor:
                return value
            held.append(worker.register(value.clone(), owner=f"owner {len(held)}"))
            return held[-1]

        args = tree_map(register, arguments)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                results = function(args[0], *args[1], **args[2])
        except NOT_RUN:
            continue
        run += 1
        tensors = [result for result in tree_leaves(results) if isinstance(result, PointerTensor)]
        if name not in RETURN_VIEWS and any(len(owners_of(one)) < len(held) for one in tensors):
            missing[name] = [owners_of(one) for one in tensors]
    assert not missing
    assert run > 60


def test_a_label_lives_as_long_as_the_memory_and_no_longer() -> None:
    """Rests on torch's storage objects keeping their attributes while only C++ holds the memory."""
    book, label = LabelBook(), frozenset({Source("bob", None, (), KeepData())})
    tensor = torch.ones(3)
    book.add_to_tensor(tensor, label)
    view = tensor.view(3)
    del tensor
    gc.collect()
    assert book.of_tensor(view) == label
    assert book.of_tensor(torch.nn.Parameter(view).detach()[1:]) == label
    assert book.of_tensor(view.clone()) == PUBLIC


@pytest.mark.parametrize(
    "sparse", [torch.Tensor.to_sparse, torch.Tensor.to_sparse_csr, torch.Tensor.to_sparse_csc]
)
def test_the_parts_of_a_sparse_tensor_count(sparse: Any) -> None:
    book, label = LabelBook(), frozenset({Source("bob", None, (), KeepData())})
    tensor = sparse(torch.eye(2))
    assert book.of_tensor(tensor) == PUBLIC
    book.add_to_tensor(tensor._values() if tensor.layout is torch.sparse_coo else tensor.values(), label)
    assert book.of_tensor(tensor) == label


def test_without_private_data_nobody_looks_for_labels() -> None:
    worker = VirtualWorker(id="bob", policy=KeepData())
    (worker.send(torch.ones(2)) + 1).get()
    assert not worker._host.labels.active
    worker.register(torch.ones(2))
    assert worker._host.labels.active


class Counted(list[float]):
    """Samples that count how often somebody looks through them."""

    looked = 0

    def __iter__(self) -> Iterator[float]:
        Counted.looked += 1
        return super().__iter__()


def test_a_visit_does_not_look_through_the_data() -> None:
    """A million samples would else be walked through in each round."""
    worker = VirtualWorker(id="bob", policy=KeepData())
    samples = worker.register(Counted([1.0, 2.0]))
    before = Counted.looked
    assert worker.run(count, samples) == 2
    assert Counted.looked == before


def test_a_source_needs_no_policy_that_can_be_hashed() -> None:
    class Unhashable(KeepData):
        __hash__ = None  # type: ignore[assignment]  # as a dataclass that is not frozen has it

    worker = VirtualWorker(id="bob", policy=Unhashable())
    with pytest.raises(RefusedByPolicy):
        (worker.register(torch.ones(2)) * 2).get()
