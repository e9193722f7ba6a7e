"""What changes what torch's Python code does shows in its settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules import module as of_modules
from torch.overrides import BaseTorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from fedlightning.local.tapes.torch_settings import settings_now


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


class Quiet(TorchDispatchMode):
    """Do nothing."""


CHANGES: dict[str, Any] = {
    "type": double,
    "deterministic": deterministic,
    "device": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.float16),
    "attention": lambda: nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH),
    "mode": BaseTorchFunctionMode,
    "dispatch mode": Quiet,
    "hook": lambda: of_modules.register_module_forward_hook(print),
    "early hook": lambda: of_modules.register_module_forward_pre_hook(print),
    "backward hook": lambda: of_modules.register_module_full_backward_hook(print),
    "early backward hook": lambda: of_modules.register_module_full_backward_pre_hook(print),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_shows(name: str) -> None:
    before = settings_now()
    assert settings_now() == before
    with CHANGES[name]():
        assert settings_now() != before
    of_modules._global_is_full_backward_hook = None  # torch leaves it, and refuses the other kind of hook
    assert settings_now() == before
