from __future__ import annotations

import logging

import pytest

from fedlightning.cli import checkup, doctor, search_path


def test_a_sound_installation(capsys: pytest.CaptureFixture[str]) -> None:
    level = logging.getLogger("lightning.pytorch").level
    assert doctor.examine() == 0
    printed = capsys.readouterr()
    for text in (
        "torch",
        "7 experiments in",
        "weight is 0.6875, and computed by hand 0.6875",
        "All is well.",
    ):
        assert text in printed.out
    assert printed.err == ""
    assert logging.getLogger("lightning.pytorch").level == level


def test_a_wrong_result_is_found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(checkup, "EXPECTED", 0.7)
    assert doctor.examine() == 1
    assert "✗ one round of two workers" in capsys.readouterr().out


def test_what_breaks_is_named_and_the_rest_is_checked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone() -> None:
        raise FileNotFoundError("no configs here")

    monkeypatch.setattr(search_path, "config_dir", gone)
    assert doctor.examine() == 1
    printed = capsys.readouterr().out
    assert "✗ configurations             FileNotFoundError: no configs here" in printed
    assert "✓ one round of two workers" in printed
    assert printed.endswith("Not well: configurations.\n")


def test_a_version_out_of_range_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needed = ["torch>=999", "rich>=999; extra == 'examples'"]
    monkeypatch.setattr(doctor, "requires", lambda name: needed)
    assert doctor.examine() == 1
    printed = capsys.readouterr().out
    assert "but fedlightning needs >=999" in printed
    assert printed.endswith("Not well: torch.\n")


def test_a_missing_extra_is_no_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "_OPTIONAL", {"no-such-package-here": "nothing"})
    assert doctor.examine() == 0
    assert "- no-such-package-here       not installed; for nothing" in capsys.readouterr().out
