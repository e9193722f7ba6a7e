"""Which workers make up the next update of an asynchronous server, by the simulated clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from typing_extensions import override

from fedlightning.algorithms.asynchronous.base import Asynchronous
from fedlightning.algorithms.flights import Flight, Flights
from fedlightning.algorithms.participation.base import Forecast
from fedlightning.algorithms.plan import Assignment, Plan
from fedlightning.algorithms.sampling import Draw, Losses
from fedlightning.algorithms.schedule import AveragedSchedule


class AsynchronousSchedule(AveragedSchedule):
    """One round: the arrivals that fill the server's buffer.

    As many workers are under way as ``cohort_size`` says. Whenever one arrives another is drawn, from those
    that are neither under way nor have an update in the buffer, and begins with the global model as it then
    is. Those that arrive at the same moment do so before anybody is drawn.

    Args:
        *args: As for `Schedule`.
        asynchronous: After how many arrivals the server steps.
        **settings: As for `Schedule`.

    Example:
        >>> from fedlightning.algorithms import Forecast, LocalWork
        >>> from fedlightning.algorithms.asynchronous import AsynchronousSchedule, FedBuff
        >>> schedule = AsynchronousSchedule(
        ...     {"ann": 1, "bob": 1}, LocalWork(), cohort_size=None, rounds_per_epoch=None, seed=0,
        ...     asynchronous=FedBuff(buffer=1),
        ... )
        >>> forecast = Forecast(seconds=lambda one: {"ann": 2.0, "bob": 5.0}[one.worker])
        >>> for round in range(4):
        ...     plan = schedule.plan(round, {}, forecast=forecast)
        ...     forecast = Forecast(seconds=forecast.seconds, flights=plan.flights)
        ...     print(plan.flights.now, plan.workers, round - plan.assignments[0].version)
        2.0 ('ann',) 0
        4.0 ('ann',) 0
        5.0 ('bob',) 2
        6.0 ('ann',) 1
    """

    def __init__(self, *args: Any, asynchronous: Asynchronous, **settings: Any) -> None:
        self.asynchronous = asynchronous
        super().__init__(*args, **settings)

    @property
    @override
    def _mean_cohort(self) -> float:
        return self.asynchronous.buffer

    @override
    def plan(
        self,
        round: int,
        steps_done: Mapping[str, int],
        losses: Losses | None = None,
        forecast: Forecast | None = None,
    ) -> Plan:
        """Return the plan of round ``round``: who arrives before the server's next step, sorted by name."""
        forecast = forecast or Forecast()
        flights, buffer = forecast.flights, list[Flight]()
        while len(buffer) < self.asynchronous.buffer:
            if not flights.due:
                flights = self._send_out(flights, round, buffer, forecast)
            if not flights.under_way:
                break  # nobody is there, or could be drawn
            arrived, flights = flights.next()
            buffer.append(arrived)
        assignments = tuple(
            Assignment(
                flight.worker, steps_done.get(flight.worker, 0), flight.steps, flight.weight, flight.version
            )
            for flight in sorted(buffer, key=lambda flight: flight.worker)
        )
        passed = flights.now - forecast.flights.now
        plan = Plan(round, assignments, self.seed, flights=flights)
        return plan.closing(passed) if forecast.has_clock else plan

    def _send_out(
        self, flights: Flights, round: int, buffer: Sequence[Flight], forecast: Forecast
    ) -> Flights:
        """Draw workers until as many are under way as there should be."""
        busy = {flight.worker for flight in (*flights.under_way, *buffer)}
        idle = set(self.pool.workers) - busy
        free = (self.cohort_size or len(self.pool.workers)) - len(flights.under_way)
        if not idle or not free:
            return flights
        draw = Draw(self.pool, free, self.seed, flights.draws).among(idle)
        cohort = self.sampling.draw(draw)
        weights = cohort.weights or (None,) * len(cohort.workers)
        drawn = zip(cohort.workers, weights, strict=True)
        gone = tuple(self._departure(flights.now, *one, round, forecast) for one in drawn)
        return replace(flights, draws=flights.draws + 1, under_way=(*flights.under_way, *gone))

    def _departure(
        self, now: float, worker: str, weight: float | None, round: int, forecast: Forecast
    ) -> Flight:
        steps = self.work.in_steps(self.batches[worker])
        seconds = forecast.seconds(Assignment(worker, 0, steps)) if forecast.has_clock else 0.0
        return Flight(now + seconds, worker, round, steps, weight)
