"""What is looked up in a module once per round, rather than once per visit: metrics, parameters, hooks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property

from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from fedlightning.local.hooks import why_not_lean


class Known:
    """Look things up in a module when they are first asked for, and keep them.

    Args:
        module: The module.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    @cached_property
    def parameters(self) -> list[nn.Parameter]:
        """Its parameters."""
        return list(self.module.parameters())

    @property
    def buffers(self) -> list[Tensor]:
        """Its buffers as they are now: modules exchange them, rather than fill them."""
        return list(self.module.buffers()) if self._has_buffers else []

    @cached_property
    def _has_buffers(self) -> bool:
        return next(self.module.buffers(), None) is not None

    @cached_property
    def collections(self) -> list[MetricCollection]:
        """Its collections of torchmetrics."""
        return [child for child in self.module.modules() if isinstance(child, MetricCollection)]

    @cached_property
    def metrics(self) -> list[tuple[str, Metric]]:
        """Its torchmetrics, with their paths."""
        return [(path, child) for path, child in self.module.named_modules() if isinstance(child, Metric)]

    @cached_property
    def why_not_lean(self) -> str:
        """Why its local steps need the general loop; empty if they do not."""
        return why_not_lean(self.module)


_current: ContextVar[Known | None] = ContextVar("known", default=None)


@contextmanager
def looked_up_once(module: nn.Module) -> Iterator[None]:
    """Keep what is looked up in a module within the block, where nothing but tensors of it changes.

    Args:
        module: The module that visits share, which they do within one process only.
    """
    token = _current.set(Known(module))
    try:
        yield
    finally:
        _current.reset(token)


def known(module: nn.Module) -> Known:
    """Return what is known of a module, or what there is to look up if nothing is."""
    current = _current.get()
    return current if current is not None and current.module is module else Known(module)
