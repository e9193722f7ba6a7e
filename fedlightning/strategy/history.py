"""The history of a run, to read, to save and to go on with. What is in a record is for `records`."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from html import escape
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

from typing_extensions import override

from fedlightning.strategy.curves import Over, plot_history
from fedlightning.strategy.phases import PHASES, Phase
from fedlightning.strategy.record_columns import RecordColumns
from fedlightning.strategy.records import EvaluatedWorker, RoundRecord, RoundTimes, VisitRecord
from fedlightning.strategy.wording import counted, human_bytes
from fedlightning.workers.ledger_table import as_html

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_NAMED_WORKERS = 20
"""Up to so many workers are recorded one by one; of more of them, the spread alone is."""

_SHOWN_ROUNDS = 10

Table = Literal["rounds", "visits", "evaluations", "workers", "times"]
Record: TypeAlias = "RoundRecord | VisitRecord | Evaluation | EvaluatedWorker | RoundTimes"


@dataclass(frozen=True)
class Evaluation:
    """One validation of the global module.

    Args:
        rounds: Rounds trained before it.
        metrics: What ``validation_step`` logged, by name.
        spread: How the metrics differ over workers, where the data lies there, as in a `RoundRecord`.
    """

    rounds: int
    metrics: Mapping[str, float]
    spread: Mapping[str, float] = field(default_factory=dict)


class History(Sequence[RoundRecord]):
    """Keep what happened in a run: a sequence of its rounds, and beside them visits and evaluations.

    Visits, and validations worker by worker, are kept of up to `MAX_NAMED_WORKERS`, so that the history of a
    large federation does not outgrow its module. The history is part of every checkpoint.

    Example:
        >>> history = History()
        >>> history.add_round(RoundRecord(0, ("bob",), 5, 0.7, {"train/acc": 0.5}, 1000, 2000), [])
        >>> history
        History(1 round, 1 worker, loss 0.7, 1 kB up, 2 kB down)
        >>> history[-1].loss
        0.7
    """

    def __init__(self) -> None:
        self._rounds = RecordColumns(RoundRecord)
        self._visits = RecordColumns(VisitRecord)
        self._evaluations: list[Evaluation] = []
        self._workers: list[EvaluatedWorker] = []
        self._times = RecordColumns(RoundTimes)

    @overload
    def __getitem__(self, index: int) -> RoundRecord: ...
    @overload
    def __getitem__(self, index: slice) -> list[RoundRecord]: ...
    @override
    def __getitem__(self, index: int | slice) -> RoundRecord | list[RoundRecord]:
        return self._rounds[index]

    @override
    def __len__(self) -> int:
        return len(self._rounds)

    @override
    def __iter__(self) -> Iterator[RoundRecord]:
        return iter(self._rounds)

    @property
    def visits(self) -> tuple[VisitRecord, ...]:
        """The visits of all rounds whose cohort was small enough."""
        return tuple(self._visits)

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """The validations of the global module."""
        return tuple(self._evaluations)

    @property
    def workers(self) -> tuple[EvaluatedWorker, ...]:
        """The validations worker by worker, of those at few enough workers."""
        return tuple(self._workers)

    @property
    def seconds(self) -> dict[Phase, float]:
        """The seconds of the whole run, by phase."""
        return {phase: sum(self._times.values(phase)) for phase in PHASES}

    @property
    def simulated_seconds(self) -> float:
        """The seconds of the whole run by the simulated clock; 0 where there is none."""
        return sum(seconds or 0.0 for seconds in self._rounds.values("simulated_seconds"))

    def add_times(self, round: int, seconds: Mapping[Phase, float]) -> None:
        """Enter the seconds that a round took; more for the last one are added to those it has.

        Args:
            round: Number of the round.
            seconds: By phase.
        """
        before = RoundTimes(round)
        if self._times and self._times[-1].round == round:
            before = self._times.pop()
        self._times.append(RoundTimes(round, *(getattr(before, phase) + seconds[phase] for phase in PHASES)))

    def add_round(self, record: RoundRecord, visits: Sequence[VisitRecord]) -> None:
        """Enter a completed round.

        Args:
            record: The round.
            visits: Its visits, of which those of a large cohort are not kept.
        """
        self._rounds.append(record)
        if len(visits) <= MAX_NAMED_WORKERS:
            self._visits.extend(visits)

    def add_evaluation(
        self,
        rounds: int,
        metrics: Mapping[str, float],
        spread: Mapping[str, float] | None = None,
        workers: Sequence[EvaluatedWorker] = (),
    ) -> None:
        """Enter a validation; another one after the same number of rounds takes its place.

        Args:
            rounds: Rounds trained before it.
            metrics: What was logged.
            spread: How the metrics differ over workers, where the data lies there.
            workers: What it gave at each worker, of which many are not kept.
        """
        if self._evaluations and self._evaluations[-1].rounds == rounds:
            self._evaluations.pop()
            self._workers = [row for row in self._workers if row.rounds != rounds]
        self._evaluations.append(Evaluation(rounds, dict(metrics), dict(spread or {})))
        if len({row.worker for row in workers}) <= MAX_NAMED_WORKERS:
            self._workers.extend(workers)

    def rows(self, of: Table = "rounds") -> list[dict[str, Any]]:
        """Return flat records of one kind, e.g. for ``pandas.DataFrame(...)``.

        Args:
            of: Which of them, as in `to_csv`. Metrics become columns; a row without one leaves it out.
        """
        return [_flat(record) for record in self._table(of)]

    def to_csv(self, path: str | PathLike[str], of: Table = "rounds") -> None:
        """Write the history to a file of comma-separated values, in UTF-8.

        Args:
            path: Where to; a file there is replaced.
            of: What a row is: a round, a visit to a worker, an evaluation, a worker in an evaluation, or the
                times of a round.
        """
        rows = self.rows(of)
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
            writer.writeheader()
            writer.writerows(rows)

    def plot(self, *names: str, ax: Axes | None = None, over: Over = "rounds") -> tuple[Figure, Axes]:
        """Draw metrics over rounds, with the band between the worst and the best worker of each.

        Args:
            *names: Metrics of rounds, visits or evaluations, such as ``"val/acc"``; ``"loss"`` unless given.
            ax: Where to draw; None makes a new figure.
            over: What the horizontal axis shows: rounds, the seconds of the simulated clock, or the megabytes
                that were moved so far, up and down.

        Returns:
            The figure and its axes.

        Raises:
            ModuleNotFoundError: matplotlib is not installed.
            ValueError: The history has no metric of a name, or no simulated clock.
        """
        return plot_history(self, names, ax, over)

    def state_dict(self) -> dict[str, Any]:
        """Return the history as plain values, visits in columns since there are many of them."""
        columns = [field.name for field in fields(VisitRecord)]
        return {
            "rounds": [asdict(record) for record in self._rounds],
            "visits": {name: self._visits.values(name) for name in columns},
            "evaluations": [asdict(evaluation) for evaluation in self._evaluations],
            "workers": [asdict(worker) for worker in self._workers],
            "times": [asdict(times) for times in self._times],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> History:
        """Return the history that was saved.

        Args:
            state: What ``state_dict`` returned; or the rounds alone, as the first checkpoints had them.
        """
        if not isinstance(state, Mapping):
            state = {"rounds": state}
        history = cls()
        history._rounds.extend(
            RoundRecord(**{**row, "workers": tuple(row["workers"])}) for row in state["rounds"]
        )
        visits = state.get("visits", {})
        history._visits.extend(
            VisitRecord(**dict(zip(visits, values, strict=True)))
            for values in zip(*visits.values(), strict=True)
        )
        history._evaluations = [Evaluation(**row) for row in state.get("evaluations", [])]
        history._workers = [EvaluatedWorker(**row) for row in state.get("workers", [])]
        history._times.extend(RoundTimes(**row) for row in state.get("times", []))
        return history

    def _table(self, of: Table) -> Sequence[Record]:
        tables: dict[str, Sequence[Record]] = {
            "rounds": self._rounds,
            "visits": self._visits,
            "evaluations": self._evaluations,
            "workers": self._workers,
            "times": self._times,
        }
        if of not in tables:
            raise ValueError(f"of={of!r} is no table of a history. Use one of {', '.join(tables)}.")
        return tables[of]

    def _repr_html_(self) -> str:
        last = self._rounds[-_SHOWN_ROUNDS:]
        metrics = list(dict.fromkeys(name for record in last for name in record.metrics))
        rows = [
            {
                "round": record.round,
                "workers": len(record.workers),
                "loss": _short(record.loss),
                **{name: _short(record.metrics.get(name)) for name in metrics},
                "up": human_bytes(record.bytes_up),
                "down": human_bytes(record.bytes_down),
            }
            for record in last
        ]
        table = as_html(("round", "workers", "loss", *metrics, "up", "down"), rows)
        return f"<p>{escape(repr(self))}</p>{table}"

    @override
    def __repr__(self) -> str:
        if not self._rounds:
            return "History(no round yet)"
        workers = {name for record in self._rounds for name in record.workers}
        loss = self._rounds[-1].loss
        parts = [
            counted(len(self), "round"),
            counted(len(workers), "worker"),
            *([f"loss {loss:.4g}"] if loss is not None else []),
            f"{human_bytes(sum(record.bytes_up for record in self))} up",
            f"{human_bytes(sum(record.bytes_down for record in self))} down",
        ]
        return f"History({', '.join(parts)})"


def _short(value: float | None) -> str | None:
    return None if value is None else f"{value:.4g}"


def _flat(record: Record) -> dict[str, Any]:
    """Turn a record into a row: names joined, metrics and spread as columns."""
    row: dict[str, Any] = {}
    for name, value in asdict(record).items():
        if name in ("workers", "skipped"):
            row[name] = " ".join(value)
        elif isinstance(value, dict):
            row |= {f"spread/{key}" if name == "spread" else key: number for key, number in value.items()}
        elif name not in ("simulated_seconds", "staleness") or value is not None:
            row[name] = value
    return row
