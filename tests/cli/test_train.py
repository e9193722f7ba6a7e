from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run

HELP_WITHOUT_TORCH = """
import sys
from fedlightning.cli.train import main
sys.argv = ["fedlightning-train", "--help"]
try:
    main()
finally:
    print("imported:", {"torch", "lightning", "numpy"} & set(sys.modules))
"""


def test_help_names_the_groups_and_does_not_import_torch() -> None:
    result = subprocess.run(
        [sys.executable, "-c", HELP_WITHOUT_TORCH], capture_output=True, text=True, check=True
    )
    assert "experiment: digits_averaged, digits_central, digits_sequential, fcube_averaged" in result.stdout
    assert result.stdout.endswith("imported: set()\n")


def test_python_m_is_the_same_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fedlightning", "--cfg", "job", "--package", "strategy"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "update: averaged" in result.stdout


def test_the_overrides_of_the_readme_arrive(train: Run) -> None:
    result = train(
        "experiment=digits_averaged", "strategy.cohort_size=5", "trainer.max_epochs=20", "--cfg", "job"
    )
    assert "cohort_size: 5" in result.stdout
    assert "max_epochs: 20" in result.stdout


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        (
            "strategy.cohort_sze=5",
            "Did you mean 'cohort_size'? There are: aggregation, algorithm,",
        ),
        ("strateg=federated_averaged", "Did you mean 'strategy'?"),
        ("trainer.gizmo=1", "trainer has no option 'gizmo'. There are: accelerator,"),
        ("seed.deep=1", "seed is the single value 42 and has no option 'deep'."),
        ("strategy=federated_avaraged", "Available options in 'strategy':\n\tcentral\n\tfederated_averaged"),
    ],
)
def test_an_unknown_option_fails_and_names_what_exists(train: Run, option: str, hint: str) -> None:
    result = train(option)
    assert result.returncode == 1
    assert hint in result.stderr


def test_a_folder_of_the_user_s_adds_options_to_our_groups(train: Run, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "experiment").mkdir(parents=True)
    (folder / "partition").mkdir()
    (folder / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /partition: extreme\nname: mine\n"
    )
    (folder / "partition" / "extreme.yaml").write_text("_target_: fedlightning.data.Dirichlet\nalpha: 0.01\n")
    result = train("--config-dir", str(folder), "experiment=mine", "--cfg", "job")
    assert "name: mine" in result.stdout
    assert "alpha: 0.01" in result.stdout


def test_the_tab_key_completes_groups_and_values(train: Run) -> None:
    line = "fedlightning-train experiment=digits_"
    result = train("-sc", "query=bash", COMP_LINE=line, COMP_POINT=str(len(line)))
    assert result.stdout.split() == [
        "experiment=digits_averaged",
        "experiment=digits_central",
        "experiment=digits_sequential",
    ]
