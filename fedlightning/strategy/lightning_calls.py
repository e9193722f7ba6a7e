"""The private parts of Lightning that the strategy touches, in one place.

``tests/strategy/test_lightning_calls.py`` fails clearly when they move.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.data import _auto_add_worker_init_fn
from lightning.pytorch.core.hooks import DataHooks
from lightning.pytorch.core.optimizer import LightningOptimizer, do_nothing_closure
from lightning.pytorch.loops.progress import _ProcessedTracker
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.trainer.connectors.data_connector import _worker_check
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from lightning_utilities.core.apply_func import apply_to_collection

from fedlightning.strategy.plan_loader import PlanLoader


@contextmanager
def counted_as_one_step(optimizers: Sequence[LightningOptimizer]) -> Iterator[None]:
    """Count all steps that a module takes by hand within the block as one, so that global_step counts rounds.

    Args:
        optimizers: The wrappers that ``self.optimizers()`` gives to the module.
    """
    counters = [(o._on_before_step, o._on_after_step) for o in optimizers]
    for optimizer in optimizers:
        optimizer._on_before_step = optimizer._on_after_step = do_nothing_closure
    try:
        yield
    finally:
        for optimizer, (before, after) in zip(optimizers, counters, strict=True):
            optimizer._on_before_step, optimizer._on_after_step = before, after
    for before, after in counters[:1]:
        before()
        after()


def devices_of(trainer: pl.Trainer) -> list[torch.device]:
    """Return the devices that ``Trainer(accelerator=..., devices=...)`` chose."""
    return [as_device(device) for device in trainer._accelerator_connector._parallel_devices]


def as_device(device: torch.device | int | str) -> torch.device:
    """Return a device as accelerators list it: those of CPUs are mere numbers with some."""
    return torch.device("cpu") if isinstance(device, (int, str)) else device


def profiled(trainer: pl.Trainer, action: str) -> AbstractContextManager[None]:
    """Time a block with the Trainer's profiler."""
    return profiler_of(trainer).profile(action)


def profiler_of(trainer: pl.Trainer) -> Profiler:
    """Return the Trainer's profiler."""
    profiler: Profiler = getattr(trainer, "profiler")  # noqa: B009 - untyped, set by a connector
    return profiler


def only_accumulates(trainer: pl.Trainer) -> bool:
    """Tell whether the current batch's gradients are accumulated without a step of the optimizer."""
    return trainer.fit_loop._should_accumulate()


def skips_backward(trainer: pl.Trainer) -> bool:
    """Tell whether there is no backward pass for the current batch, as where a callback averages weights."""
    return trainer.fit_loop.epoch_loop.automatic_optimization._skip_backward


def batches_ahead(trainer: pl.Trainer) -> int:
    """Return how many batches were read beyond the current one, to find out whether that is the last."""
    return len(getattr(trainer.fit_loop._data_fetcher, "batches", ()))


def has_loader_states(trainer: pl.Trainer) -> bool:
    """Tell whether train loaders that keep their own places are about to be set to them."""
    return bool(trainer.fit_loop._combined_loader_states_to_load)


def resumable(checkpoint: Mapping[str, Any]) -> bool:
    """Tell whether a checkpoint holds more than the weights."""
    return "optimizer_states" in checkpoint


def is_being_restored(trainer: pl.Trainer, checkpoint: Mapping[str, Any]) -> bool:
    """Tell whether the Trainer restores itself from a checkpoint, rather than somebody its weights alone."""
    return trainer._checkpoint_connector._loaded_checkpoint is checkpoint


def awaits_train_loader(trainer: pl.Trainer) -> bool:
    """Tell whether a loader that comes now is one to train on.

    A batch-size finder loads those of the validation anew while the Trainer says that it is training.
    """
    loop = trainer.fit_loop
    return trainer.training and (loop._combined_loader is None or loop._should_reload_train_dl)


def combination_of(trainer: pl.Trainer) -> tuple[Any, Any]:
    """Return how the train loaders are combined, once all of them have their stand-ins.

    Returns:
        The mode, and the collection with the number of each loader in its place.
    """
    combined = trainer.fit_loop._combined_loader
    assert combined is not None
    return mode_of_combination(trainer), apply_to_collection(
        combined.iterables, PlanLoader, lambda loader: loader.number
    )


def mode_of_combination(trainer: pl.Trainer) -> str:
    """Return the mode of the `CombinedLoader` that the train loaders are in."""
    combined = trainer.fit_loop._combined_loader
    assert combined is not None
    return combined._mode


def tell_batch_size(trainer: pl.Trainer, samples: int) -> None:
    """Weight what hooks log from here to the end of the batch by its samples, which a plan does not show."""
    results = trainer._results
    if results is not None:
        results.batch_size = max(samples, 1)


def without_loaders(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checkpoint without the states of train loaders: an ordinary Trainer has no loader for ours."""
    loops = checkpoint["loops"]
    fit_loop = loops["fit_loop"]
    kept = {name: state for name, state in fit_loop["state_dict"].items() if name != "combined_loader"}
    return {**checkpoint, "loops": {**loops, "fit_loop": {**fit_loop, "state_dict": kept}}}


def batch_number(trainer: pl.Trainer) -> int:
    """Return the number of the current train batch within its epoch."""
    return trainer.fit_loop.epoch_loop.batch_idx


def advise_on_processes(trainer: pl.Trainer, loader: object) -> None:
    """Say what Lightning says about the number of a train loader's processes."""
    _worker_check(trainer=trainer, dataloader=loader, name="train_dataloader")


def seed_processes(trainer: pl.Trainer, loader: object) -> None:
    """Have the processes of a train loader seeded, as ``seed_everything(workers=True)`` asks."""
    _auto_add_worker_init_fn(loader, trainer.global_rank)


def epochs_processed(trainer: pl.Trainer) -> int:
    """Return how many epochs the Trainer has run; counts one before the hooks of its end."""
    current = trainer.fit_loop.epoch_progress.current
    assert isinstance(current, _ProcessedTracker)
    return current.processed


def evaluated_metrics(trainer: pl.Trainer) -> dict[str, float]:
    """Return what the validation that is ending has logged, without what training has."""
    results = trainer._results
    if results is None:
        return {}
    return {name: float(value) for name, value in results.metrics(on_step=False)["callback"].items()}


def takes_dataloader_iter(module: pl.LightningModule) -> bool:
    """Tell whether ``training_step`` iterates the loader itself."""
    return is_param_in_hook_signature(module.training_step, "dataloader_iter", explicit=True)


def overrides(hook: str, module: pl.LightningModule) -> bool:
    """Tell whether a module overrides a hook of ``LightningModule``."""
    return is_overridden(hook, module)


class PassPlansBy:
    """Keep plans out of the user's ``on_before_batch_transfer``, which Lightning calls on every train batch.

    An object rather than a function, so that a module with it can be copied and pickled.

    Args:
        module: The module.
        stands_in: Tells whether something stands in for a batch; a function of a module, to be pickled.
    """

    def __init__(self, module: pl.LightningModule, stands_in: Callable[[Any], bool]) -> None:
        self._module = module
        self._stands_in = stands_in

    def __call__(self, batch: Any, dataloader_idx: int = 0) -> Any:
        """Return a plan as it is; call the hook on anything else."""
        if self._stands_in(batch):
            return batch
        return type(self._module)._on_before_batch_transfer(self._module, batch, dataloader_idx)

    @classmethod
    def install(cls, module: pl.LightningModule, stands_in: Callable[[Any], bool]) -> None:
        """Set up the guard on one module, if its hook, or its DataModule's, is the user's own."""
        datamodule = getattr(module.trainer, "datamodule", None)
        hook = "on_before_batch_transfer"
        if overrides(hook, module) or (
            datamodule is not None and is_overridden(hook, datamodule, parent=DataHooks)
        ):
            module.__dict__["_on_before_batch_transfer"] = cls(module, stands_in)

    @staticmethod
    def remove(module: pl.LightningModule) -> None:
        """Take the guard away."""
        module.__dict__.pop("_on_before_batch_transfer", None)
