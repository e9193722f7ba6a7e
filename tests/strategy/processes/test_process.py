"""A process of a simulation ends with the controller, however that ends."""

from __future__ import annotations

import subprocess
import sys

CONTROLLER = """
import time
from fedlightning.strategy.processes.messages import Forget
from fedlightning.strategy.processes.packing import pack
from fedlightning.strategy.processes.process import Process

process = Process()
process.tell(pack(Forget()))
print("started", flush=True)
time.sleep(600)
"""


def test_nothing_is_left_behind_by_a_controller_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", CONTROLLER], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == "started\n"
        starter.kill()
        # Its process has the same output: this waits for the end of both.
        rest, _ = starter.communicate(timeout=200)
    assert rest == ""
