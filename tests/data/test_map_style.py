from __future__ import annotations

from collections.abc import Iterator

import pytest
from torch.utils.data import IterableDataset

from fedlightning.data.map_style import check_map_style


class Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


def test_counts_samples() -> None:
    assert check_map_style([4, 5, 6]) == 3


def test_says_what_is_possible_instead_of_an_iterable_dataset() -> None:
    with pytest.raises(
        TypeError, match=r"dataset=Stream is an IterableDataset.*Give a map-style dataset.*list"
    ):
        check_map_style(Stream())


def test_refuses_what_has_no_length_or_no_samples() -> None:
    with pytest.raises(TypeError, match="dataset=generator is not map-style"):
        check_map_style(value for value in range(3))
    with pytest.raises(ValueError, match="dataset=list has no samples"):
        check_map_style([])
