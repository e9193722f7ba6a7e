from __future__ import annotations

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from fedlightning.cli import job
from fedlightning.cli.replay import replay_visit
from fedlightning.strategy import RoundFailed
from tests.cli.failing import Fails
from tests.configs.composing import composing


def train(folder: Path) -> str:
    """Train what fails, as the command does, and return the message."""
    with composing(folder) as composed:
        cfg = composed("debug=short", "model._target_=tests.cli.failing.Fails", "strategy.workers=3")
        (folder / ".hydra").mkdir(parents=True)
        OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")  # as Hydra does
        with pytest.raises(RoundFailed) as failed:
            job.run(cfg)
    return str(failed.value)


def test_a_visit_that_failed_fails_again_until_it_is_repaired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    message = train(run)
    (checkpoint,) = (run / "failed_visits").glob("*.ckpt")
    assert f"fedlightning replay {checkpoint}" in message
    (reason,) = re.findall(r"ArithmeticError: [\d.]+ is too much", message)
    before = sorted(run.rglob("*"))

    assert replay_visit(run, None, debug=False) == 1
    assert reason in capsys.readouterr().err, "the very same batch"
    assert sorted(run.rglob("*")) == before, "a replay writes nothing"

    monkeypatch.setattr(Fails, "repaired", True)
    assert replay_visit(checkpoint, None, debug=False) == 0
    assert "The visit did not fail this time." in capsys.readouterr().out


def test_nothing_to_replay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay_visit(tmp_path, None, debug=False) == 2
    assert "has no failed visit" in capsys.readouterr().err
    (tmp_path / "a.ckpt").touch()
    assert replay_visit(tmp_path / "a.ckpt", None, debug=False) == 2
    assert "call fedlightning.strategy.replay" in capsys.readouterr().err
