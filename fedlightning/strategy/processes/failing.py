"""What the controller is told of a visit that has failed in a process."""

from __future__ import annotations

import traceback

from fedlightning.local.failures import LocalStepFailed
from fedlightning.strategy.processes.messages import Failure
from fedlightning.strategy.processes.packing import pack, unpack


class ReshapedBuffer(RuntimeError):
    """A visit has given a buffer another shape.

    Args:
        name: Its name.
    """


def told(error: Exception) -> Failure:
    """Return what the controller is told of an exception.

    Args:
        error: What a visit has raised.
    """
    step = error.step if isinstance(error, LocalStepFailed) else None
    original = (error.__cause__ if step is not None else None) or error
    text = "".join(traceback.format_exception(original))
    assert isinstance(original, Exception)
    try:
        unpack(pack(original))
    except Exception:  # noqa: BLE001  # not every exception can be made anew: then its text is told
        original = RuntimeError(f"{type(original).__name__}: {original}")
    return Failure(step, original, text)
