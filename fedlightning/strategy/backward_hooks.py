"""The part of the strategy that Lightning calls around a backward pass.

For its length, something may stand in for the precision plugin; what that can be lives in ``backward``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from lightning.pytorch.plugins.precision import Precision
from torch import Tensor
from typing_extensions import override

from fedlightning.strategy.checkpoint_hooks import CheckpointingStrategy


class BackwardStrategy(CheckpointingStrategy):
    """Compute gradients as on a single device, or take them from elsewhere; arguments as there."""

    _standing_in: Precision | None = None

    @abstractmethod
    def _in_place_of(self, plugin: Precision) -> Precision | None:
        """Return what stands in for the precision plugin in the coming backward pass, if anything."""

    @property
    @override
    def precision_plugin(self) -> Precision:
        """The Trainer's precision plugin, or what stands in for it in a backward pass."""
        return self._standing_in or super().precision_plugin

    @precision_plugin.setter
    def precision_plugin(self, precision_plugin: Precision | None) -> None:
        self._precision_plugin = precision_plugin

    @override
    def pre_backward(self, closure_loss: Tensor) -> None:
        """See to it that the backward pass puts the round's gradients, or pseudo-gradients, on the module."""
        super().pre_backward(closure_loss)
        self._standing_in = self._in_place_of(self.precision_plugin)

    @override
    def post_backward(self, closure_loss: Tensor) -> None:
        """Let the precision plugin be itself again."""
        self._standing_in = None
        super().post_backward(closure_loss)

    @override
    def teardown(self) -> None:
        """Let nothing stand in for the precision plugin, however the fit has ended."""
        self._standing_in = None
        super().teardown()

    @contextmanager
    def _as_itself(self, around: Callable[[], AbstractContextManager[None]] = nullcontext) -> Iterator[None]:
        """Show hooks the precision plugin itself; after a failure nothing stands in for it any more."""
        standing_in, self._standing_in = self._standing_in, None
        with around():
            yield
        self._standing_in = standing_in
