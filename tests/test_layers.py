"""The import contract holds, and is able to fail."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts of the package that lies in a folder."""
    command = [
        sys.executable,
        "-c",
        "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command as c; c()",
        "--no-cache",
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def copy_package(folder: Path) -> Path:
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copytree(ROOT / "fedlightning", folder / "fedlightning")
    return folder / "fedlightning"


def test_imports_run_down_the_layers() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


def test_an_import_up_the_layers_is_found(tmp_path: Path) -> None:
    package = copy_package(tmp_path)
    (package / "pointers" / "upward.py").write_text("import fedlightning.workers\n")
    result = lint_imports(tmp_path)
    assert result.returncode == 1
    assert "fedlightning.pointers is not allowed to import fedlightning.workers" in result.stdout


def test_lightning_below_the_strategy_is_found(tmp_path: Path) -> None:
    package = copy_package(tmp_path)
    (package / "workers" / "sideways.py").write_text("import lightning\n")
    result = lint_imports(tmp_path)
    assert result.returncode == 1
    assert "fedlightning.workers is not allowed to import lightning" in result.stdout


def test_every_layer_of_the_contract_exists() -> None:
    contract = (ROOT / "pyproject.toml").read_text().split("layers = [")[1].split("]")[0]
    named = {
        part.strip(' "').rsplit(".", 1)[1]
        for line in contract.split(",")
        for part in line.split("|")
        if part.strip()
    }
    folders = {path.parent.name for path in (ROOT / "fedlightning").glob("*/__init__.py")}
    assert named == folders - {"examples"}
