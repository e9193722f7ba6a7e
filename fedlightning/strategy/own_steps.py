"""A module's own ``optimizer_step`` belongs to local steps: a round, which Lightning steps, too, is none."""

from __future__ import annotations

from types import CodeType
from typing import Any

import lightning.pytorch as pl

from fedlightning.strategy.lightning_calls import overrides

HOOK = "optimizer_step"


class OwnSteps:
    """Stand before a module's own ``optimizer_step``, and let it be called for the steps of visits alone.

    An object rather than a function, so that a module with it can be copied and pickled.

    Args:
        module: The module.
    """

    def __init__(self, module: pl.LightningModule) -> None:
        self._module = module

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Call the module's own hook while it visits a worker, and Lightning's otherwise."""
        module = self._module
        visiting = getattr(module.trainer.strategy, "visiting", False)
        owner = type(module) if visiting else pl.LightningModule
        getattr(owner, HOOK)(module, *args, **kwargs)

    @property
    def __code__(self) -> CodeType:
        """That of the module's own hook: Lightning compares it to see whether the hook is overridden."""
        code: CodeType = getattr(type(self._module), HOOK).__code__
        return code

    @classmethod
    def install(cls, module: pl.LightningModule) -> None:
        """Stand before the hook, if it is the user's own."""
        if overrides(HOOK, module) and HOOK not in module.__dict__:
            module.__dict__[HOOK] = cls(module)

    @classmethod
    def remove(cls, module: pl.LightningModule) -> None:
        """Step aside."""
        if isinstance(module.__dict__.get(HOOK), cls):
            del module.__dict__[HOOK]
