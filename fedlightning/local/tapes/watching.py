"""Which Python code a step runs, and which modules torch's code looks at meanwhile.

What that code reads, and whether it is still the same later on, is found out in ``readings``.
"""

from __future__ import annotations

import gc
import os
import sys
import sysconfig
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor, nn

PLAIN = (int, float, complex, bool, str, bytes, type(None), type(...))
"""Types of values that cannot change."""

OF_TORCH = (torch.dtype, torch.device, torch.layout, torch.memory_format)
"""Torch's types of such values."""

_TRUSTED = tuple(
    os.path.join(os.path.dirname(path), "")
    for path in (torch.__file__, os.path.dirname(os.path.dirname(__file__)))
)
"""Where code lies that depends on its arguments, on attributes of modules, and on settings of torch alone."""

_STANDARD = tuple(os.path.join(sysconfig.get_paths()[kind], "") for kind in ("stdlib", "platstdlib"))
_SITE = tuple(os.path.join(sysconfig.get_paths()[kind], "") for kind in ("purelib", "platlib"))


class Watch:
    """Take down which functions are called within a block, and with what; only one watches at a time.

    Args:
        passed_over: Code of which it is known what it depends on.

    Attributes:
        why_not: What keeps this from telling all that a step depends on; empty if nothing does.
        codes: The code that has run, with its globals, but for torch's and the library's own.
        touched: Modules to which a function of torch's or somebody else's was applied.
    """

    def __init__(self, passed_over: Collection[CodeType] = ()) -> None:
        self.why_not = ""
        self._passed_over = passed_over
        self.codes: dict[CodeType, Mapping[str, Any]] = {}
        self._touched: dict[int, nn.Module] = {}
        self._is_passed: dict[CodeType, bool] = {}

    @property
    def touched(self) -> list[nn.Module]:  # noqa: D102  # told above
        return list(self._touched.values())

    def __enter__(self) -> Watch:
        # What is left of others is cleared away by code that is none of the step's.
        self._collects = gc.isenabled()
        gc.disable()
        if sys.getprofile() is None:
            sys.setprofile(self._look)
        else:
            self.why_not = "somebody else is watching"
        return self

    def __exit__(self, *error: object) -> None:
        if sys.getprofile() == self._look:
            sys.setprofile(None)
        else:
            self.why_not = self.why_not or "somebody else is watching"
        # Not before: what has been put off may come at once.
        if self._collects:
            gc.enable()

    @contextmanager
    def looking_away(self) -> Iterator[None]:
        """Take down nothing within the block."""
        watches = sys.getprofile() == self._look
        if watches:
            sys.setprofile(None)
        try:
            yield
        finally:
            if watches and sys.getprofile() is None:
                sys.setprofile(self._look)

    def _look(self, frame: FrameType, event: str, argument: Any) -> None:
        if event != "call" or self.why_not:
            return
        # As most calls are.
        is_passed = self._is_passed.get(frame.f_code)
        if is_passed is None:
            is_passed = self._is_passed[frame.f_code] = _is_trusted_and_no_method(frame.f_code)
        if is_passed:
            return
        arguments, trusted = frame.f_locals, _is_trusted(frame)
        for name, value in arguments.items():
            if isinstance(value, nn.Module) and (name == "self" or not trusted):
                self._touched[id(value)] = value
        if trusted or frame.f_code in self._passed_over:
            return
        if self.codes.setdefault(frame.f_code, frame.f_globals) is not frame.f_globals:
            self.why_not = "two functions share their code"
        if not all(name == "__class__" or _is_argument(value) for name, value in arguments.items()):
            self.why_not = f"{frame.f_code.co_name} takes what may change"


def _is_trusted_and_no_method(code: CodeType) -> bool:
    """Tell whether it is torch's or the library's own, whoever has called it, and is applied to no module."""
    names = (*code.co_varnames[: code.co_argcount + code.co_kwonlyargcount], *code.co_freevars)
    return code.co_filename.startswith(_TRUSTED) and "self" not in names


def _is_trusted(frame: FrameType | None) -> bool:
    """Tell whether it is torch's or the library's own code, or the standard library's on their behalf."""
    while frame is not None:
        path = frame.f_code.co_filename
        if path == "<string>":  # methods of dataclasses are made from strings
            path = getattr(sys.modules.get(frame.f_globals.get("__name__", "")), "__file__", None) or path
        if path.startswith(_TRUSTED):
            return True
        standard = path.startswith(("<frozen", *_STANDARD)) and not path.startswith(_SITE)
        if not standard:
            return False
        frame = frame.f_back
    return False


def _is_argument(value: Any) -> bool:
    if isinstance(value, Tensor | nn.Module):
        return True
    if isinstance(value, list | tuple | dict):
        parts = value.values() if isinstance(value, dict) else value
        return bool(value) and all(isinstance(part, Tensor) for part in parts)
    return type(value) in PLAIN or isinstance(value, OF_TORCH)
