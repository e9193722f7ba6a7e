"""A new Python on this machine that ends with its starter. What the two tell each other is for others."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

PATIENCE_SECONDS = 5.0
# What one training step has freed is kept for the next. The C library (glibc; others pass this over) would
# else hand it back to the system, which maps and clears it again page by page: a quarter of a small CNN's
# step. By itself it settles on these very figures once it has freed 32 MiB in one piece.
_KEEP_FREED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(64 * 2**20)}


def launch(module: str, connection: socket.socket) -> subprocess.Popen[bytes]:
    """Start a Python package as a program.

    Args:
        module: Its name. It must end when its standard input does, which the starter holds open.
        connection: The one socket that it is given; closed here.
    """
    # The same modules as here must be found there, wherever the starter found them.
    modules = {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    with connection:
        return subprocess.Popen(
            [sys.executable, "-m", module, str(connection.fileno())],
            stdin=subprocess.PIPE,
            pass_fds=[connection.fileno()],
            env={**_KEEP_FREED_MEMORY, **os.environ, **modules},
        )


def end(process: subprocess.Popen[bytes]) -> None:
    """End what was launched, whatever it is at: as its standard input is closed, or by force."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def end_with_starter() -> None:
    """End this process when its starter closes standard input, or dies, even amid a program; for a thread."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(0)
