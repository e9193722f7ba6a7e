from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from fedlightning.data.partition import Natural


class Patients(Dataset[int]):
    hospital = ("west", "east", "west", "north")

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        return index


def as_lists(partition: object) -> list[list[int]]:
    return [part.tolist() for part in partition.indices]  # type: ignore[attr-defined]


def test_groups_by_an_attribute_of_the_dataset() -> None:
    partition = Natural("hospital").split(Patients())
    assert partition.worker_names == ("east", "north", "west")
    assert as_lists(partition) == [[1], [3], [0, 2]]


def test_groups_by_a_tensor_an_array_and_a_function() -> None:
    groups = torch.tensor([7, 3, 7])
    dataset = TensorDataset(torch.zeros(3, 2), groups)
    for column in (groups, groups.numpy(), 1, lambda data: data.tensors[1]):
        partition = Natural(column).split(dataset)
        assert partition.worker_names == ("3", "7")
        assert as_lists(partition) == [[1], [0, 2]]


def test_nothing_is_random() -> None:
    values = np.arange(30) % 4
    assert as_lists(Natural(values).split(range(30), seed=1)) == as_lists(
        Natural(values).split(range(30), seed=2)
    )


def test_says_what_a_missing_column_could_be() -> None:
    with pytest.raises(ValueError, match=r"column='patient' was not found on dataset=Patients.*name of one"):
        Natural("patient").split(Patients())


def test_refuses_a_column_of_another_length() -> None:
    with pytest.raises(ValueError, match=r"shape \(4,\).*got shape \(2,\)"):
        Natural(["a", "b"]).split(Patients())
