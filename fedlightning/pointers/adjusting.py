"""What pointers change in torch itself, so that nothing goes wrong unseen. Only once there are pointers."""

from __future__ import annotations

from fedlightning.pointers.custom_functions import guard_custom_functions
from fedlightning.pointers.overridable import make_overridable


def adjust_torch() -> None:
    """Let torch take notice of pointers where it would not; nothing changes for local tensors."""
    guard_custom_functions()
    make_overridable()
