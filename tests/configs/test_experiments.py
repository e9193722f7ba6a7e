"""Every experiment runs for two epochs with everything it has, and leaves what it promises."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from fedlightning.cli.job import run
from tests.configs.composing import Compose

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
EXPERIMENTS = sorted(file.stem for file in (CONFIGS / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_runs(
    experiment: str, composed: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    accuracy = run(composed(f"experiment={experiment}", "debug=short"))

    assert accuracy is not None
    assert accuracy > 0.4, "no better than guessing"
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()
    assert list((tmp_path / "tensorboard").glob("events.*"))
    with (tmp_path / "csv" / "metrics.csv").open() as file:
        validated = [float(row["val/acc"]) for row in csv.DictReader(file) if row["val/acc"]]
    assert len(validated) == 2
    assert validated[-1] == pytest.approx(accuracy)

    federated = experiment != "digits_central"
    assert (tmp_path / "federation.png").is_file() == federated
    assert (tmp_path / "report.html").is_file() == federated
    assert ("The federation" in capsys.readouterr().out) == federated


@pytest.mark.parametrize("debug", ["fast", "profile", "anomaly"])
def test_the_debug_options_run(debug: str, composed: Compose) -> None:
    run(composed("experiment=digits_averaged", f"debug={debug}", "trainer.max_epochs=1"))
