"""Objects are found by what they are called, at both kinds of workers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten
from torch.utils.data import TensorDataset

from fedlightning.workers import KeepData, RefusedByPolicy, Worker
from tests.workers.conftest import MakeWorker


def test_tags_and_description_go_along_with_a_tensor(bob: Worker) -> None:
    x = torch.ones(2).tag("#boston", "#housing").tag("#boston").describe("rooms")
    pointer = x.send(bob)
    (found,) = bob.search("#housing")
    assert found.id_at_location == pointer.id_at_location
    assert (found.tags, found.description) == (("#boston", "#housing"), "rooms")
    assert bob.search(["#boston", "#housing"])
    assert bob.search("#boston", "#train") == []


@pytest.mark.parametrize("value", [torch.ones(2), TensorDataset(torch.ones(2))], ids=["tensor", "data set"])
def test_objects_are_named_where_they_are(value: object, bob: Worker) -> None:
    pointer = bob.send(value, tags=("#a",))
    assert pointer.tag("#b").describe("something") is pointer
    assert (pointer.tags, pointer.description) == (("#a", "#b"), "something")
    assert len(bob.search("#a", "#b")) == 1


def test_what_is_computed_has_no_name(bob: Worker) -> None:
    x = bob.send(torch.ones(2), tags=("#a",))
    assert (x + x).tags == ()


def test_the_names_of_private_data_are_its_owners(make_worker: MakeWorker) -> None:
    worker = make_worker("bob", policy=KeepData())
    data = worker.register(torch.ones(2), tags=("#secret",))
    for rename in (lambda: data.tag("#public"), lambda: (data * 2).describe("harmless")):
        with pytest.raises(RefusedByPolicy, match="rules go by it"):
            rename()
    assert data.tags == ("#secret",)


@pytest.mark.parametrize("value", [(torch.ones(2), 3, "a"), 3.5, [1, {"a": torch.zeros(1)}]])
def test_tuples_and_scalars_come_back(value: object, bob: Worker) -> None:
    leaves, structure = tree_flatten(bob.send(value).get())
    expected, expected_structure = tree_flatten(value)
    assert structure == expected_structure
    assert all(a.equal(b) if isinstance(a, Tensor) else a == b for a, b in zip(leaves, expected, strict=True))
    assert len(bob) == 0


def test_clearing_leaves_what_data_owners_registered(bob: Worker) -> None:
    x, data = bob.send(torch.ones(2)), bob.register(torch.zeros(2))
    doubled = x * 2
    assert bob.clear_objects() is bob
    assert len(bob) == 1
    assert torch.equal((data + 1).get(), torch.ones(2))
    with pytest.raises(RuntimeError, match="no object"):
        doubled + 1
