from __future__ import annotations

from typing import Any

import pytest
from matplotlib.figure import Figure

from fedlightning.strategy import History, RoundRecord, VisitRecord
from fedlightning.strategy.curves import draw_bytes, metric_families


def history(workers: int = 2) -> History:
    """Two rounds: the loss falls from 2 to 1, and the workers' losses lie 0.5 to both sides."""
    run = History()
    for number, loss in enumerate((2.0, 1.0)):
        names = tuple(f"worker-{n}" for n in range(workers))
        metrics = {"train/loss": loss}
        record = RoundRecord(number, names, 2, loss, metrics, 1_000_000, 500_000, {"train/loss_std": 0.5})
        losses = [loss - 0.5, loss + 0.5] * (workers // 2)
        visits = [
            VisitRecord(number, name, 1, 1, own, {"train/loss": own, "train/acc": 0.1}, 0, 0)
            for name, own in zip(names, losses, strict=True)
        ]
        run.add_round(record, visits)
    run.add_evaluation(2, {"val/loss": 1.5})
    return run


def test_metrics_are_sorted_by_what_they_measure() -> None:
    assert metric_families(history()) == {"acc": ["train/acc"], "loss": ["train/loss", "val/loss"]}
    silent = History()
    silent.add_round(RoundRecord(0, ("bob",), 1, 1.0, {}, 0, 0), [])
    assert metric_families(silent) == {"loss": ["loss"]}
    assert metric_families(History()) == {}


@pytest.mark.parametrize("workers", [2, 22], ids=["by visits", "by deviation"])
def test_a_line_over_rounds_in_the_band_of_the_workers(workers: int) -> None:
    figure, axes = history(workers).plot("train/loss", "val/loss")
    assert isinstance(figure, Figure)
    trained, validated = axes.lines
    assert trained.get_xydata().tolist() == [[1, 2.0], [2, 1.0]]
    assert validated.get_xydata().tolist() == [[2, 1.5]]
    (band,) = axes.collections
    (outline,) = band.get_paths()
    assert {tuple(point) for point in outline.vertices.tolist()} == {(1, 1.5), (1, 2.5), (2, 0.5), (2, 1.5)}


def test_the_loss_is_drawn_unless_something_else_is_named() -> None:
    _, axes = history().plot()
    assert axes.get_title() == "loss"
    assert axes.lines[0].get_ydata().tolist() == [2.0, 1.0]


def test_it_draws_where_it_is_told_to() -> None:
    figure = Figure()
    own = figure.subplots()
    assert history().plot("val/loss", ax=own) == (figure, own)


def test_what_rounds_have_taken_can_take_their_place() -> None:
    _, axes = history().plot("train/loss", "val/loss", over="megabytes")
    assert axes.lines[0].get_xdata().tolist() == [1.5, 3.0]
    assert axes.lines[1].get_xdata().tolist() == [3.0]
    assert {x for x, _ in axes.collections[0].get_paths()[0].vertices.tolist()} == {1.5, 3.0}
    assert axes.get_xlabel() == "MB moved"


def test_rounds_over_the_simulated_clock() -> None:
    run = History()
    run.add_evaluation(0, {"val/acc": 0.1})
    for number, seconds in enumerate((2.0, 0.5)):
        run.add_round(RoundRecord(number, ("bob",), 1, 1.0, {}, 0, 0, simulated_seconds=seconds), [])
        run.add_evaluation(number + 1, {"val/acc": 0.5})
    _, axes = run.plot("val/acc", over="simulated_seconds")
    assert axes.lines[0].get_xdata().tolist() == [0.0, 2.0, 2.5]


@pytest.mark.parametrize(
    ("over", "remedy"), [("simulated_seconds", "clock=SimulatedClock"), ("hours", "one of rounds")]
)
def test_what_the_history_cannot_tell_is_refused(over: Any, remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        history().plot(over=over)


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="There are: train/loss, train/acc, val/loss, loss"):
        history().plot("acc")


def test_bytes_are_summed_up() -> None:
    axes = Figure().subplots()
    draw_bytes(axes, history())
    assert [line.get_ydata().tolist() for line in axes.lines] == [[1.0, 2.0], [0.5, 1.0]]


def test_a_validation_at_workers_has_its_band() -> None:
    run = History()
    for rounds, worst in enumerate((0.2, 0.4), start=1):
        run.add_evaluation(rounds, {"val/acc": 0.5}, {"val/acc_min": worst, "val/acc_gap": 0.5})
    _, axes = run.plot("val/acc")
    (band,) = axes.collections
    (outline,) = band.get_paths()
    corners = {(x, round(y, 9)) for x, y in outline.vertices.tolist()}
    assert corners == {(1, 0.2), (1, 0.7), (2, 0.4), (2, 0.9)}
