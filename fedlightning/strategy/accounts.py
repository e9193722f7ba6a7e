"""What has crossed the doors of workers that were visited before anything was made of them.

One record per round stands for all that are alike. Whoever asks for a worker finds it in its ledger.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import replace

from fedlightning.workers import Worker
from fedlightning.workers.joint import Account, JointProgram


class Accounts:
    """Keep accounts of workers that have no ledger yet."""

    def __init__(self) -> None:
        self._kept: list[tuple[Account, tuple[str, ...]]] = []
        self._programs: dict[Hashable, JointProgram] = {}
        # Sorted by worker as far as somebody has asked: a run may end without that.
        self._of_worker: defaultdict[str, list[Account]] = defaultdict(list)
        self._sorted = 0

    def keep(self, account: Account, names: tuple[str, ...]) -> None:
        """Keep what has crossed the door of each of some workers.

        Args:
            account: What it is.
            names: Their names.
        """
        # What is sent to workers weighs the same in most rounds, of which there may be thousands.
        alike = self._programs.setdefault(account.joint.weight, account.joint)
        self._kept.append((replace(account, joint=alike), names))

    def settle(self, worker: Worker) -> None:
        """Enter in a worker's ledger what was kept of it.

        Args:
            worker: One that was just made.
        """
        for account, names in self._kept[self._sorted :]:
            for name in names:
                self._of_worker[name].append(account)
        self._sorted = len(self._kept)
        for account in self._of_worker.pop(worker.id, ()):
            account.enter(worker.ledger, worker.id)
