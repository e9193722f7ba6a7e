"""Over-selection: ask more workers than are needed, and do not wait for the slowest.

Bonawitz et al. 2019, "Towards Federated Learning at Scale: System Design", sections 2.2 and 9.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from typing_extensions import override

from fedlightning.algorithms.participation.base import Forecast, Participation, without
from fedlightning.algorithms.plan import Plan
from fedlightning.data.checks import check_real


@dataclass(frozen=True)
class OverSelection(Participation):
    """Draw more workers than ``cohort_size``, and take the ``cohort_size`` that arrive first.

    Who arrives when is told by the simulated clock, so that the work of those that would come too late is not
    done at all. A round ends when enough have arrived, or at the deadline with those that are there by then.

    Args:
        extra: How many more are asked, as a share of ``cohort_size``; 0.3, as in the paper, unless given.
        deadline: Simulated seconds after which a round waits for nobody; ``None`` to wait.

    Raises:
        ValueError: A number is out of range.

    Example:
        >>> from fedlightning.algorithms import Assignment, Forecast, Plan
        >>> cohort = tuple(Assignment(name, first_step=0, steps=5) for name in ("alice", "bob", "carol"))
        >>> seconds = {"alice": 9.0, "bob": 2.0, "carol": 4.0}
        >>> forecast = Forecast(goal=2, seconds=lambda one: seconds[one.worker])
        >>> OverSelection(extra=0.5).outcome(Plan(0, cohort, seed=0), forecast).workers
        ('bob', 'carol')
        >>> late = OverSelection(extra=0.5, deadline=3.0).outcome(Plan(0, cohort, seed=0), forecast)
        >>> late.workers, late.closes
        (('bob',), 3.0)
    """

    extra: float = 0.3
    deadline: float | None = None

    def __post_init__(self) -> None:
        check_real("extra", self.extra, zero_allowed=True, remedy="Give a share such as 0.3, or 0 for none.")
        if self.deadline is not None:
            check_real("deadline", self.deadline, zero_allowed=False, remedy="Leave it out to wait.")

    @property
    @override
    def needs_clock(self) -> bool:
        return True

    @override
    def asked(self, size: int | None) -> int | None:
        if size is None:
            if self.extra:
                raise ValueError(
                    f"extra={self.extra} is a share of cohort_size, and without one all workers are asked in "
                    "any case. Give a cohort_size, or use extra=0 with a deadline."
                )
            return None
        # What rounding has added is not asked for: ten and 30% are 13.
        return ceil(round(size * (1 + self.extra), 9))

    @override
    def outcome(self, plan: Plan, forecast: Forecast) -> Plan:
        seconds = {one.worker: forecast.seconds(one) for one in plan.assignments}
        arrivals = sorted(seconds, key=lambda worker: (seconds[worker], worker))
        in_time = [w for w in arrivals if self.deadline is None or seconds[w] <= self.deadline]
        asked = len(plan.workers) + len(plan.absent)
        wanted = asked if forecast.goal is None else min(forecast.goal, asked)
        taken = set(in_time[:wanted])
        late = set(arrivals) - set(in_time)
        rest = without(plan, late, f"not there at the deadline of {self.deadline:g} s") if late else plan
        rest = without(rest, set(in_time) - taken, "not among the first to arrive")
        return rest.closing(self.deadline) if len(taken) < wanted else rest
