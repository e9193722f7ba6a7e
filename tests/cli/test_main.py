from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fedlightning import __version__
from fedlightning.cli import job
from fedlightning.cli.compare import compare
from fedlightning.cli.main import main
from tests.configs.composing import composing

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "from fedlightning.cli.main import main; main()"
HELP_WITHOUT_TORCH = """
import sys
from fedlightning.cli.main import main
sys.argv = ["fedlightning", "--help"]
try:
    main()
finally:
    print("imported:", {"torch", "lightning", "numpy", "hydra"} & set(sys.modules))
"""


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", COMMAND, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_help_names_the_commands_and_does_not_import_torch() -> None:
    result = subprocess.run(
        [sys.executable, "-c", HELP_WITHOUT_TORCH], capture_output=True, text=True, check=True
    )
    for name in ("train", "compare", "replay", "doctor"):
        assert f"    {name} " in result.stdout
    assert result.stdout.endswith("imported: set()\n")


def test_the_command_is_installed_under_its_name() -> None:
    assert '\nfedlightning = "fedlightning.cli.main:main"\n' in (ROOT / "pyproject.toml").read_text()
    assert (main.__module__, main.__name__) == ("fedlightning.cli.main", "main")


def test_train_is_the_training_command(tmp_path: Path) -> None:
    result = run("train", "experiment=digits_sequential", "--cfg", "job", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "update: sequential" in result.stdout
    assert run("train", "seeed=1", cwd=tmp_path).returncode == 1


def test_two_runs_are_trained_and_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        with composing(tmp_path / name) as composed:
            job.run(
                composed("debug=short", "logger=none", "callbacks=none", "fingerprint=true", f"seed={seed}")
            )
    capsys.readouterr()
    assert compare(tmp_path / "a", tmp_path / "b") == 0
    assert "The same bits before the first round to after round 1" in capsys.readouterr().out
    assert compare(tmp_path / "a", tmp_path / "c") == 1
    assert capsys.readouterr().out.startswith("They differ before the first round: network.")


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["unknown"], 2), (["--version"], 0), (["-h"], 0)])
def test_exit_codes(
    arguments: list[str], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fedlightning", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == code
    if arguments == ["--version"]:
        assert capsys.readouterr().out == f"fedlightning {__version__}\n"
