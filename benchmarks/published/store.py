"""Runs that are finished lie in a file, one a line, so that a study that was interrupted goes on."""

from __future__ import annotations

import json
import logging
import os
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

import torch

from benchmarks.published.federation import Curve
from benchmarks.published.study import Curves, Job


class Store:
    """Run what is not finished yet, in several processes.

    Args:
        path: The file; made where there is none.
        processes: How many, of one thread each; 0 for this one.
    """

    def __init__(self, path: Path, processes: int = 0) -> None:
        self._path = path
        self._processes = processes
        self._finished: dict[str, Curve] = {}
        self.seconds = 0.0
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                self._finished[row["job"]] = Curve(row["rounds"], row["metrics"])
                self.seconds += row["seconds"]

    def measure(self, jobs: Sequence[Job]) -> Curves:
        """Return what the runs came to.

        Args:
            jobs: The runs; in any order, and possibly finished.
        """
        missing = [job for job in dict.fromkeys(jobs) if repr(job) not in self._finished]
        if self._processes:
            self._side_by_side(missing)
        else:
            for job in missing:
                self._keep(job, *carry_out(job))
        return {job: self._finished[repr(job)] for job in jobs}

    def _side_by_side(self, jobs: Sequence[Job]) -> None:
        with ProcessPoolExecutor(self._processes, mp_context=get_context("spawn")) as pool:
            started = {pool.submit(carry_out, job): job for job in jobs}
            for done in as_completed(started):
                self._keep(started[done], *done.result())

    def _keep(self, job: Job, curve: Curve, seconds: float) -> None:
        self._finished[repr(job)] = curve
        self.seconds += seconds
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"job": repr(job), "seconds": seconds, **asdict(curve)}) + os.linesep)


def carry_out(job: Job) -> tuple[Curve, float]:
    """Return what a run came to, and the seconds that this process has computed for it."""
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    begun = time.process_time()
    return job.run(), time.process_time() - begun
