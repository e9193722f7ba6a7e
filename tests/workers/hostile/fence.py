"""Run Python behind the fence, which ends a process that reaches past a tensor's memory (see `fence.c`)."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

_PRELOAD = "LD_PRELOAD"


def is_up() -> bool:
    """Tell whether this process runs behind the fence."""
    return _PRELOAD in os.environ


def run_behind(*arguments: str) -> int:
    """Run Python behind the fence, which takes a C compiler and Linux.

    Args:
        *arguments: Of the interpreter, such as ``-m`` and a module's name.

    Returns:
        The exit code.
    """
    with tempfile.TemporaryDirectory() as folder:
        library, source = Path(folder, "fence.so"), Path(__file__).with_name("fence.c")
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, source], check=True)
        command = [sys.executable, "-W", "ignore", *arguments]
        return subprocess.call(command, env={**os.environ, _PRELOAD: str(library)})
