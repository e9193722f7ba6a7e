"""The callback that writes a fingerprint per round. What one is, and how two compare: `fingerprints`."""

from __future__ import annotations

from pathlib import Path

import lightning as L
from typing_extensions import override

from fedlightning.callbacks.fingerprints import Fingerprint, read_fingerprints, take_fingerprint

FINGERPRINT_FILE = "fingerprint.jsonl"
"""Name of the file in a run's folder."""


class RunFingerprint(L.Callback):
    """Write a hash of every parameter and buffer of the global module after each round, to compare runs by.

    One line of JSON per round goes to ``path``; ``fedlightning compare run1 run2`` names the first round and
    tensor that differ. Works without a federation, too (a round is then a training batch), so that a
    federated run can be compared with the central one. It reads the module only: a run has the same bits with
    and without. A resumed run goes on in the same file.

    Args:
        path: The file.
    """

    def __init__(self, path: str | Path = FINGERPRINT_FILE) -> None:
        self.path = Path(path)

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin the file with the module before training; where a run goes on, keep what came before."""
        if not trainer.is_global_zero:
            return
        done = trainer.fit_loop.total_batch_idx + 1
        known = read_fingerprints(self.path) if done and self.path.is_file() else {}
        kept = [fingerprint for rounds, fingerprint in known.items() if rounds < done]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("".join(fingerprint.as_line() for fingerprint in kept), encoding="utf-8")
        self._write(take_fingerprint(pl_module, done))

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Add the fingerprint of the module as it is after the round."""
        if trainer.is_global_zero:
            self._write(take_fingerprint(pl_module, trainer.fit_loop.total_batch_idx + 1))

    def _write(self, fingerprint: Fingerprint) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(fingerprint.as_line())
