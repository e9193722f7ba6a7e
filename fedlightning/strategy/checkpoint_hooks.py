"""The part of the strategy that Lightning calls to write and read checkpoints.

A file holds the federation beside what Lightning saves. Hooks and callbacks see Lightning's part alone, both
before a save and after a load. What the federation's part holds lives in ``run`` and ``checkpoint``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.fabric.utilities.types import _PATH
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from fedlightning.strategy import lightning_calls
from fedlightning.strategy.checkpoint import check_format
from fedlightning.strategy.readings import ReadableStrategy
from fedlightning.strategy.reporting import spread_of
from fedlightning.strategy.whole_files import written_whole

KEY = "federation"
"""Under which a file holds the federation's part."""


class ReadCheckpoint(dict[str, Any]):
    """A checkpoint as hooks see it, with the federation's part, if it has one, beside it.

    Args:
        content: All that was in the file.

    Attributes:
        federation: The federation's part; ``None`` where there is none.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        super().__init__(content)
        self.federation: Mapping[str, Any] | None = self.pop(KEY, None)


class CheckpointingStrategy(ReadableStrategy):
    """Save the federation along with what Lightning saves, and go on from both; arguments as there."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._resume: Mapping[str, Any] | None = None
        self._fitting = False

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: _PATH, storage_options: Any | None = None
    ) -> None:
        """Save the federation along with what Lightning saves, unless that is the weights alone.

        Raises:
            CheckpointNotSaved: There is no room for it.
            ValueError: A hook has put something where the federation's part is.
        """
        run = self._run
        if run is not None and self._trainer.validating:  # a validation's end is saved before our hook
            self._enter_evaluation()
        if run is not None and run.has_begun and lightning_calls.resumable(checkpoint):
            if KEY in checkpoint:
                raise ValueError(
                    f"on_save_checkpoint has added {KEY!r} to the checkpoint, where FederatedStrategy keeps "
                    "its workers. Add it under another name."
                )
            if run.leaves_loaders_out:
                checkpoint = lightning_calls.without_loaders(checkpoint)
            checkpoint = {**checkpoint, KEY: run.state_dict()}
        with written_whole(filepath, 0 if run is None else run.round):
            super().save_checkpoint(checkpoint, filepath, storage_options)

    @override
    def load_checkpoint(self, checkpoint_path: _PATH, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a checkpoint, with the federation's part beside it."""
        return ReadCheckpoint(super().load_checkpoint(checkpoint_path, *args, **kwargs))

    @override
    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Load the module; where a fit goes on, keep the federation's part until the data is placed.

        Raises:
            NotFederatable: Its format is none that this version reads.
        """
        super().load_model_state_dict(checkpoint, strict)
        if not lightning_calls.is_being_restored(self._trainer, checkpoint):
            return  # the weights alone
        assert isinstance(checkpoint, ReadCheckpoint)
        if self._trainer.state.fn == TrainerFn.FITTING and checkpoint.federation is not None:
            check_format(checkpoint.federation)
            self._resume = checkpoint.federation
        if self._fitting:
            assert self.lightning_module is not None
            self._this_run.begin_again(self._resume)
            self._this_run.prepare_server(self.lightning_module)

    @override
    def teardown(self) -> None:
        """Forget what was read."""
        self._resume = None
        self._fitting = False
        super().teardown()

    @override
    def on_validation_end(self) -> None:
        """Enter the validation in the history."""
        super().on_validation_end()
        self._enter_evaluation()

    def _enter_evaluation(self) -> None:
        if self._trainer.state.fn == TrainerFn.FITTING and not self._trainer.sanity_checking:
            rounds, metrics = self._this_run.round, lightning_calls.evaluated_metrics(self._trainer)
            loaders = self._evaluation.workers_by_loader("validation_step", rounds, metrics)
            spread = {
                name: value
                for rows in loaders
                for name, value in spread_of([row.metrics for row in rows]).items()
            }
            self.history.add_evaluation(rounds, metrics, spread, [row for rows in loaders for row in rows])
