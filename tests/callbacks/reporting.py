"""A strategy that reports a federation of two, without training one."""

from __future__ import annotations

from dataclasses import dataclass

from lightning.pytorch.strategies import SingleDeviceStrategy

from fedlightning.algorithms.plan import Assignment, Plan


@dataclass(frozen=True)
class Reported:
    worker: str
    samples: int
    label_counts: dict[int, int]
    metrics: dict[str, float]
    sent_bytes: int = 2000
    received_bytes: int = 1000


class ReportingStrategy(SingleDeviceStrategy):
    """Ordinary training that claims to be a federation of bob and alice, in round 7."""

    def __init__(self) -> None:
        super().__init__(device="cpu")
        self.current_plan: Plan | None = Plan(7, (Assignment("bob", 0, 1), Assignment("alice", 0, 1)), seed=0)

    def federation_summary(self) -> list[Reported]:
        return [
            Reported("bob", 6, {0: 4, 1: 2}, {"val/acc": 0.5}),
            Reported("alice", 4, {1: 4}, {"val/acc": 0.75}),
        ]
