"""Measure what a call of `self.log` costs during a visit: ``python -m benchmarks.self_log``.

A hundred calls are one visit's, so that opening its account and combining the values are part of the price.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import torch

from benchmarks.measuring import CPU, FULL, QUICK, Effort, seconds_each
from benchmarks.table import Row, render
from benchmarks.workloads import OPTIMIZERS, Metered, logistic_regression
from fedlightning.local.known import looked_up_once
from fedlightning.local.logs import recorded_logs

CALLS = 100
TARGET = 5.0


def measured(effort: Effort) -> Iterator[Row]:
    """Measure each kind of call.

    Args:
        effort: How long to measure.

    Yields:
        Microseconds of the processor's per logged name.
    """
    module = Metered(logistic_regression(), OPTIMIZERS["sgd"])
    batch = [torch.zeros(10, 60), torch.zeros(10, dtype=torch.int64)]
    loss = module.net(batch[0]).mean()
    calls: dict[str, tuple[int, Callable[[], None]]] = {
        "a loss": (1, lambda: module.log("loss", loss)),
        "a loss, with settings": (
            1,
            lambda: module.log("loss", loss, prog_bar=True, on_step=True, on_epoch=True, sync_dist=True),
        ),
        "a number": (1, lambda: module.log("number", 0.5)),
        "a torchmetric": (1, lambda: module.log("accuracy", module.train_accuracy)),
        "log_dict of three": (3, lambda: module.log_dict({"loss": loss, "twice": loss, "number": 0.5})),
    }
    for what, (names, call) in calls.items():

        def visit(call: Callable[[], None] = call) -> None:
            with recorded_logs(module) as logs:
                logs.start_step(batch)
                for _ in range(CALLS):
                    call()
                assert logs.values

        with looked_up_once(module):
            each = seconds_each(visit, effort, CPU).scaled(1e6 / CALLS / names)
        yield Row(f"self.log of {what}" if names == 1 else f"{what}, each", each, "us", TARGET)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few calls, to see that it runs")
    effort = QUICK if parser.parse_args().quick else FULL
    torch.set_num_threads(1)
    print(render(measured(effort)), flush=True)


if __name__ == "__main__":
    main()
