from __future__ import annotations

from pathlib import Path

import pytest

from fedlightning.cli import search_path


def test_in_a_checkout_the_folder_lies_beside_the_package() -> None:
    assert search_path.config_dir() == Path(__file__).resolve().parents[2] / "configs"


def make_configs(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "train.yaml").touch()
    return folder


def test_inside_the_package_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_path, "_PACKAGE", tmp_path / "fedlightning")
    make_configs(tmp_path / "configs")
    inside = make_configs(tmp_path / "fedlightning" / "configs")
    assert search_path.config_dir() == inside


def test_no_folder_at_all_is_an_error_with_both_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_path, "_PACKAGE", tmp_path / "fedlightning")
    with pytest.raises(FileNotFoundError, match="reinstall fedlightning") as error:
        search_path.config_dir()
    assert str(tmp_path / "configs") in str(error.value)
