"""The wheel, installed into an environment of its own and used in an empty folder."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.xdist_group("wheel")  # builds once: these tests stay in one process


def run(*command: str | Path, cwd: Path) -> str:
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a wheel and an sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the programs' folder of an environment that has the wheel and borrows its dependencies."""
    pytest.importorskip("ensurepip", reason="some systems ship Python without it")
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    run(
        python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", *built.glob("*.whl"), cwd=folder
    )
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    # A folder added by a .pth file has its own .pth files ignored, so our checkout stays out of sight.
    (Path(site) / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def test_the_wheel_carries_configs_and_type_marker(built: Path) -> None:
    names = zipfile.ZipFile(next(built.glob("*.whl"))).namelist()
    assert "fedlightning/configs/train.yaml" in names
    assert "fedlightning/py.typed" in names
    assert "fedlightning/callbacks/report/page.html.jinja" in names
    assert not [name for name in names if name.startswith(("tests/", "configs/"))]


def test_the_sdist_carries_sources_only(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        folders = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    assert {"fedlightning", "configs", "tests", "LICENSE", "pyproject.toml"} <= folders
    assert not folders & {".venv", ".git", ".ci", "outputs", "dist"}


def test_an_installed_package_finds_its_configs_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    origin = run(
        installed / "python", "-c", "import fedlightning; print(fedlightning.__file__)", cwd=tmp_path
    )
    assert Path(origin.strip()).is_relative_to(installed.parent)
    shown = run(
        installed / "fedlightning-train", "experiment=digits_sequential", "--cfg", "job", cwd=tmp_path
    )
    assert "update: sequential" in shown


def test_an_installed_package_trains_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    run(installed / "fedlightning-train", "experiment=digits_averaged", "debug=fast", cwd=tmp_path)


def test_another_hydra_application_composes_our_groups(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "app.yaml").write_text(
        "defaults:\n  - partition: iid\n  - server_optimizer: none\n  - strategy: federated_averaged\n"
        "  - _self_\nseed: 1\nstrategy:\n  workers: 3\n"
    )
    (tmp_path / "app.py").write_text(
        "import fedlightning, hydra\n"
        "@hydra.main(version_base='1.3', config_path='own', config_name='app')\n"
        "def main(cfg):\n"
        "    print(cfg.strategy['update'], cfg.strategy.workers, cfg.strategy.partition._target_)\n"
        "main()\n"
    )
    assert run(installed / "python", "app.py", cwd=tmp_path) == "averaged 3 fedlightning.data.IID\n"
