from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fedlightning.cli.replay import replay_visit

MODULE = """
import os
from fedlightning.examples import DigitsClassifier

class Fails(DigitsClassifier):
    def training_step(self, batch, batch_idx):
        plan = self.trainer.strategy.current_plan
        if plan.round == 1 and len(batch[0]) < 32 and "REPAIRED" not in os.environ:
            raise ArithmeticError(f"{float(batch[0].sum()):.4f} is too much")
        return super().training_step(batch, batch_idx)
"""
COMMAND = "from fedlightning.cli.main import main; main()"


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_visit_that_failed_fails_again_until_it_is_repaired(tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(MODULE)
    failed = run(
        tmp_path,
        "train",
        "debug=short",
        "model._target_=failing.Fails",
        "strategy.workers=3",
        "hydra.run.dir=out",
    )
    assert failed.returncode == 1
    (checkpoint,) = (tmp_path / "out" / "failed_visits").glob("*.ckpt")
    number = re.findall(r"ArithmeticError: ([\d.]+) is too much", failed.stderr)[0]

    before = sorted((tmp_path / "out").rglob("*"))
    again = run(tmp_path, "replay", "out")
    assert again.returncode == 1
    assert number in again.stderr, "the very same batch"
    assert sorted((tmp_path / "out").rglob("*")) == before, "a replay writes nothing"

    repaired = run(tmp_path, "replay", str(checkpoint), REPAIRED="1")
    assert (repaired.returncode, repaired.stderr.count("Traceback")) == (0, 0)
    assert "The visit did not fail this time." in repaired.stdout


def test_nothing_to_replay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay_visit(tmp_path, None, debug=False) == 2
    assert "has no failed visit" in capsys.readouterr().err
    (tmp_path / "a.ckpt").touch()
    assert replay_visit(tmp_path / "a.ckpt", None, debug=False) == 2
    assert "call fedlightning.strategy.replay" in capsys.readouterr().err
