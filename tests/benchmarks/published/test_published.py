"""Each study runs in its smallest form, and makes of runs what it says."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from torch.utils.data import TensorDataset

from benchmarks.published import __main__ as command
from benchmarks.published import fedavg, fedprox, robust, scaffold
from benchmarks.published.federation import ACCURACY, FOOLED, LOSS, Curve
from benchmarks.published.intervals import Interval
from benchmarks.published.page import as_markdown, as_text, between, write
from benchmarks.published.study import Claim, Curves, Effort, Job, Measure, Report, Table
from fedlightning.data.datasets.split import TrainVal
from tests.documents import ROOT

QUICK = Effort(seeds=(0, 1), tuning=(100,), quick=True)
STUDIES: dict[str, Callable[[Measure, Effort], Report]] = {
    "fedavg": fedavg.study,
    "scaffold": scaffold.study,
    "robust": robust.study,
    "fedprox": fedprox.study,
}
RUNS: list[Job] = [
    fedavg.Run("FedSGD", "two shards", 0.1, 0, quick=True),
    fedavg.Run("FedAvg", "IID", 0.1, 0, quick=True),
    scaffold.Run(scaffold.Case("SCAFFOLD", 1, 0.1), 0.3, 0, quick=True),
    robust.Run("Bulyan", "replacement", 0, quick=True),
    robust.Run("FLTrust", "ALIE", 0, quick=True),
    fedprox.Run("large", "(0.5, 0.5)", 0.9, "mu=1", 0, quick=True),
    fedprox.Run("small", "IID", 0.9, "FedAvg", 0, quick=True),
]


def few_images(seed: int) -> TrainVal:
    """Stand in for MNIST, which takes seconds to read."""
    labels = torch.arange(50) % 10
    return TrainVal(*(TensorDataset(torch.rand(50, 1, 28, 28), labels) for _ in range(2)))


@pytest.mark.parametrize("job", RUNS, ids=repr)
def test_a_run_tests_the_global_module(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fedavg, "load_mnist5k", few_images)
    curve = job.run()
    assert curve.rounds
    assert 0 <= curve.last() <= 1
    assert all(len(values) == len(curve.rounds) for values in curve.metrics.values())


def made_up(jobs: Sequence[Job]) -> Curves:
    """Return a curve for each job that depends on the job alone, without training."""

    def curve(number: int) -> Curve:
        values = [0.1, 0.2 + 0.7 / (1 + number % 7)]
        return Curve([1, 2], {ACCURACY: values, LOSS: values, FOOLED: values})

    return {job: curve(len(repr(job)) + number) for number, job in enumerate(jobs)}


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_finds_its_place_in_the_page(name: str, tmp_path: Path) -> None:
    report = STUDIES[name](made_up, QUICK)
    (tmp_path / "published.md").write_text((ROOT / "docs" / "published.md").read_text())
    write({name: report}, tmp_path)
    page = (tmp_path / "published.md").read_text()
    assert as_markdown(report.details) in page
    assert all(claim.says in page for claim in report.claims)
    assert (tmp_path / "published" / f"{name}.svg").stat().st_size
    rows = (tmp_path / "published" / f"{name}.csv").read_text().splitlines()
    assert len(rows) == 1 + len(report.values.rows)


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [
        (Interval(2.0, 0.5), "yes"),
        (Interval(2.0, 1.5), "open"),
        (Interval(0.2, 0.5), "no"),
        (Interval(0.2, 0.5, at_least=True), "open"),
        (Interval(2.0, float("nan")), "open"),
    ],
)
def test_a_claim_holds_if_all_of_the_interval_does(ours: Interval, verdict: str) -> None:
    assert Claim("paper", "claim", "3", ours, "2 times", beyond=1.0).verdict == verdict


def test_the_command_runs_all_studies_unless_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    efforts: list[Effort] = []

    def study(measure: Measure, effort: Effort) -> Report:
        efforts.append(effort)
        claim = Claim("paper", "what it says", "3", Interval(2.0, 0.5), "2 times", beyond=1.0)
        return Report([claim], Table(("a",), [("b",)]), Table((), []), Figure())

    monkeypatch.setattr(command, "STUDIES", {"one": study, "other": study})
    monkeypatch.setattr(sys, "argv", ["published", "--quick", "--store", str(tmp_path)])
    command.main()
    assert [effort.quick for effort in efforts] == [True, True]
    assert capsys.readouterr().out.count("what it says") == 2


def test_tables() -> None:
    table = Table(("a", "b"), [("12", "3")])
    assert as_text(table) == "a   b\n12  3"
    assert as_markdown(table) == "| a | b |\n| --- | --- |\n| 12 | 3 |"
    with pytest.raises(ValueError, match="no place for 'x'"):
        between("", "x", "y")


def test_similar_data_is_dealt_and_the_rest_sorted() -> None:
    labels = torch.tensor([0, 1] * 50)
    data = TensorDataset(torch.zeros(100, 1), labels)
    all_sorted, half = (scaffold.SortedBut(share).split(data, 2, seed=0) for share in (0.0, 0.5))
    assert [int(labels[part].sum()) for part in all_sorted.indices] == [0, 50]
    assert sorted(i for part in half.indices for i in part) == list(range(100))
    assert 0 < labels[half.indices[0]].sum() < 25
