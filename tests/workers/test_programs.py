"""Programs are registered by name, and only functions that have one."""

from __future__ import annotations

from typing import Any

import pytest

from fedlightning.workers import program


def test_a_function_without_a_name_is_no_program() -> None:
    def inner() -> None: ...

    for function in (inner, lambda: None):
        with pytest.raises(ValueError, match="top level of a module"):
            program(returns="metrics")(function)


def test_the_kind_of_egress_is_checked() -> None:
    bad: Any = "everything"
    with pytest.raises(ValueError, match=r"returns='everything'.*data, module, metrics, metadata"):
        program(returns=bad)
