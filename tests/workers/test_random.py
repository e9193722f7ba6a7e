from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedlightning.workers.random import derive_seed, derive_seeds

parts = st.one_of(st.integers(), st.text())
keys = st.lists(parts, max_size=4).map(tuple)


def test_value_never_changes() -> None:
    # A different number would change the result of every seeded run that anybody has published.
    assert derive_seed(0, "cohort", 3) == 15114947354076982922


def test_value_is_the_same_in_another_process() -> None:
    code = "from fedlightning.workers.random import derive_seed; print(derive_seed(7, 'shuffle', 'bob', 2))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(other.stdout) == derive_seed(7, "shuffle", "bob", 2)


@given(st.integers(), keys, keys)
def test_different_keys_give_different_seeds(
    seed: int, one: tuple[int | str, ...], other: tuple[int | str, ...]
) -> None:
    assert (derive_seed(seed, *one) == derive_seed(seed, *other)) == (one == other)


def test_keys_are_not_merely_joined() -> None:
    assert len({derive_seed(0, "ab", "c"), derive_seed(0, "a", "bc"), derive_seed(0, "abc")}) == 3
    assert derive_seed(0, 1) != derive_seed(0, "1")


@given(st.integers(), keys)
def test_fits_into_64_bits(seed: int, key: tuple[int | str, ...]) -> None:
    assert 0 <= derive_seed(seed, *key) < 2**64


@pytest.mark.parametrize("part", [True, 1.5, None])
def test_refuses_other_types(part: object) -> None:
    with pytest.raises(TypeError, match="integers and strings"):
        derive_seed(0, part)  # type: ignore[arg-type]  # what a careless caller would do


@given(st.integers(), keys, st.lists(st.tuples(parts, parts), max_size=4))
def test_seeds_of_many_are_those_of_each(
    seed: int, key: tuple[int | str, ...], each: list[tuple[int | str, int | str]]
) -> None:
    columns = [[one for one, _ in each], [other for _, other in each]]
    assert derive_seeds(seed, *key, each=columns).tolist() == [derive_seed(seed, *key, *own) for own in each]


def test_seeds_of_many_refuse_what_one_refuses() -> None:
    derive_seeds(0, 1, each=[[1]])
    with pytest.raises(TypeError, match="integers and strings"):
        derive_seeds(0, 1, each=[[True]])
    with pytest.raises(TypeError, match="integers and strings"):
        derive_seeds(0, True, each=[[1]])
