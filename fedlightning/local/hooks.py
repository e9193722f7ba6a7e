"""Which hooks of a local step the user has overridden: without any, the lean loop does the same, faster."""

from __future__ import annotations

import lightning.pytorch as pl
from lightning.pytorch.core.hooks import DataHooks
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn

from fedlightning.local.lightning_calls import callbacks_of

BATCH_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
STEP_HOOKS = (
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_before_zero_grad",
)
MODULE_HOOKS = (
    *BATCH_HOOKS,
    *STEP_HOOKS,
    "backward",
    "optimizer_step",
    "optimizer_zero_grad",
    "configure_gradient_clipping",
    "clip_gradients",
)


def is_hooked(tensor: Tensor) -> bool:
    """Tell whether somebody has registered a function on a tensor, to be called with its gradient."""
    # Private to torch: nothing public tells.
    return bool(tensor._backward_hooks or tensor._post_accumulate_grad_hooks)


def why_not_lean(module: nn.Module) -> str:
    """Say what keeps a module's local steps from being taken without any hooks.

    Args:
        module: A LightningModule with a Trainer.

    Returns:
        The reason, in a few words; empty if there is none.
    """
    assert isinstance(module, pl.LightningModule)
    trainer = module.trainer
    if not module.automatic_optimization:
        return "manual optimization"
    if type(trainer.precision_plugin) is not Precision:
        return f"precision {trainer.precision_plugin.precision}"
    if trainer.gradient_clip_val:
        return "gradient clipping"
    for hook in MODULE_HOOKS:
        if is_overridden(hook, module):
            return f"{type(module).__name__}.{hook}"
    datamodule = getattr(trainer, "datamodule", None)
    for hook in BATCH_HOOKS:
        if datamodule is not None and is_overridden(hook, datamodule, parent=DataHooks):
            return f"{type(datamodule).__name__}.{hook}"
    for callback in callbacks_of(trainer):
        for hook in STEP_HOOKS:
            if is_overridden(hook, callback, parent=pl.Callback):
                return f"{type(callback).__name__}.{hook}"
    return ""
