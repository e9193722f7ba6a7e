from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from fedlightning.data.labels import find_column, find_labels

LABELS = [2, 0, 1, 2]


class WithAttribute(Dataset[int]):
    def __init__(self, name: str, values: Any) -> None:
        setattr(self, name, values)

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        raise AssertionError("labels must be found without reading samples")


class HuggingFaceLike:
    column_names = ("image", "label")

    def __len__(self) -> int:
        return 4

    def __getitem__(self, key: Any) -> Any:
        assert key == "label"
        return LABELS


TENSORS = TensorDataset(torch.zeros(4, 3), torch.tensor(LABELS))


@pytest.mark.parametrize(
    "dataset",
    [
        TENSORS,
        WithAttribute("targets", LABELS),
        WithAttribute("labels", np.array(LABELS)),
        WithAttribute("y", torch.tensor(LABELS)),
        HuggingFaceLike(),
    ],
)
def test_found_by_convention(dataset: Any) -> None:
    assert find_labels(dataset).tolist() == LABELS


def test_subsets_and_concatenations_are_followed() -> None:
    nested = Subset(Subset(TENSORS, [3, 2, 1]), [0, 2])
    joined: ConcatDataset[Any] = ConcatDataset([nested, WithAttribute("targets", LABELS)])
    assert find_labels(joined).tolist() == [2, 0, *LABELS]


def test_given_labels_win() -> None:
    own = [5, 5, 6, 6]
    for labels in (own, np.array(own), torch.tensor(own), lambda dataset: own):
        assert find_labels(TENSORS, labels).tolist() == own


def test_strings_are_classes() -> None:
    assert find_labels(WithAttribute("targets", ["cat", "dog", "cat", "dog"])).tolist()[1] == "dog"


def test_a_method_called_labels_is_no_label() -> None:
    with pytest.raises(ValueError, match="no labels were found on dataset=WithAttribute"):
        find_labels(WithAttribute("labels", lambda: LABELS))


def test_a_part_without_labels_leaves_none() -> None:
    with pytest.raises(ValueError, match="no labels were found on dataset=ConcatDataset"):
        find_labels(ConcatDataset([TENSORS, WithAttribute("other", LABELS)]))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.rand(4), "got float32.*numpy.digitize"),
        (torch.eye(4, dtype=torch.int64), r"got shape \(4, 4\).*argmax"),
    ],
)
def test_refuses_what_is_no_class(labels: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_labels(TensorDataset(torch.zeros(4), labels))


def test_column_by_position_name_and_subset() -> None:
    assert find_column(TENSORS, 1).tolist() == LABELS
    assert find_column(Subset(TENSORS, [2, 0]), -1).tolist() == [1, 2]
    assert find_column(Subset(WithAttribute("writer", list("abca")), [3, 1]), "writer").tolist() == ["a", "b"]
    with pytest.raises(ValueError, match="column=2 was not found"):
        find_column(TENSORS, 2)
