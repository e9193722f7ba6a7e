"""What is packed is there again: values, memory in common, and what both sides know."""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fedlightning.strategy.processes import packing
from fedlightning.strategy.processes.packing import pack, pack_shared, unpack, unpack_shared
from fedlightning.strategy.processes.shared_memory import Layout, mapped

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
def test_tensors_come_back(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = torch.ones(shape).to(dtype)
    back = unpack(pack({"one": [tensor]}))["one"][0]
    assert back.dtype == dtype
    assert torch.equal(back, tensor)


def test_a_view_comes_without_the_rest() -> None:
    big = torch.zeros(100_000)
    assert len(pack(big[5:7])) < 1000
    transposed = torch.arange(6.0).view(2, 3).T
    assert torch.equal(unpack(pack(transposed)), transposed)


def test_parameters_stay_parameters() -> None:
    module = unpack(pack(nn.Linear(2, 1).requires_grad_(False)))
    assert isinstance(module.weight, nn.Parameter)
    assert not module.weight.requires_grad


def test_ordered_dicts_keep_their_order_and_attributes() -> None:
    marked: Any = OrderedDict()
    marked.version = 3
    empty, full, again = unpack(pack([OrderedDict(), OrderedDict(b=1, a=2), marked]))
    assert [type(one) for one in (empty, full, again)] == [OrderedDict] * 3
    assert (list(empty), list(full.items()), vars(again)) == ([], [("b", 1), ("a", 2)], {"version": 3})
    one = OrderedDict[str, int]()
    left, right = unpack(pack([one, one]))
    assert left is right


def test_what_both_know_is_not_sent() -> None:
    module, there = nn.Linear(100, 100), nn.Linear(100, 100)
    known = {id(tensor): number for number, tensor in enumerate(module.parameters())}
    packed = pack(module, known)
    assert len(packed) < 2000
    copy = unpack(packed, list(there.parameters()))
    assert copy.weight is there.weight


def test_lists_that_both_know_are_not_sent_either() -> None:
    samples = [(n, n) for n in range(1000)]
    packed = pack({"data": samples}, {id(samples): 0}, thorough=True)
    assert len(packed) < 100
    assert unpack(packed, {0: "theirs"})["data"] == "theirs"


def test_what_a_script_defines_finds_names_in_the_module_it_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As torch.compile asks there.
    script: dict[str, Any] = {"__name__": "__main__", "offset": 3}
    exec("def add(number): return number + offset", script)
    there: dict[str, Any] = {"__name__": "__main__"}
    monkeypatch.setattr(packing, "script", there)
    add = unpack(pack(script["add"]))
    assert add.__globals__ is there
    assert (add(1), there["offset"]) == (4, 3)


def test_what_a_notebook_defines_travels() -> None:
    offset = 3

    def shift(x: int) -> int:
        return x + offset

    assert unpack(pack(shift))(1) == 4


def shared(value: Any) -> tuple[Any, Tensor]:
    packed, places, memory = pack_shared(value)
    there = mapped(os.dup(memory.descriptor), len(memory.bytes))
    return unpack_shared(packed, places, there), memory.bytes


def test_data_lies_in_shared_memory_once() -> None:
    x = torch.arange(2000.0).view(100, 20)
    halves = [TensorDataset(x[:50]), TensorDataset(x[50:])]
    array = np.arange(5)
    (first, second), numbers = shared((halves, array))[0]
    assert torch.equal(second.tensors[0], x[50:])
    assert np.array_equal(numbers, array)
    assert first.tensors[0].untyped_storage().data_ptr() == second.tensors[0].untyped_storage().data_ptr()


def test_both_sides_see_the_same_memory() -> None:
    there, memory = shared(torch.zeros(4))
    memory.fill_(255)
    assert there.isnan().all()


def test_a_module_lies_in_memory_as_its_tensors_do() -> None:
    images = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    tensors = [nn.Parameter(images), torch.tensor(3), torch.empty(0), torch.tensor([True, False])]
    layout = Layout.of(tensors)
    memory = torch.zeros(2 * layout.nbytes, dtype=torch.uint8)
    views = layout.within(memory, 1)
    for view, tensor in zip(views, tensors, strict=True):
        view.copy_(tensor.detach())
    again = layout.within(memory, 1)
    assert [view.stride() for view in again] == [tensor.stride() for tensor in tensors]
    assert all(map(torch.equal, again, tensors))
    assert not memory[: layout.nbytes].any()
