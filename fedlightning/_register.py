"""Makes fedlightning known to Lightning (strategy names) and Hydra (configuration groups), at no cost.

Neither library is imported here, nor is torch: what is already imported is told at once, the rest at the
moment the user imports it. What the names stand for lives in `fedlightning.strategy` and `configs/`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from typing_extensions import override

STRATEGIES: dict[str, dict[str, Any]] = {
    "federated": {},
    "federated_averaged": {"update": "averaged"},
    "federated_sequential": {"update": "sequential"},
}


def register_when_imported() -> None:
    """Announce fedlightning to each library in `_ANNOUNCEMENTS`, now or as soon as it is imported."""
    waiting = {name: announce for name, announce in _ANNOUNCEMENTS.items() if name not in sys.modules}
    if waiting and not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport(waiting))
    for name in _ANNOUNCEMENTS.keys() - waiting.keys():
        # import_module waits for a module that another thread is importing just now.
        _ANNOUNCEMENTS[name](import_module(name))


def _register_strategies(strategies: ModuleType) -> None:
    for name, settings in STRATEGIES.items():
        strategies.StrategyRegistry.register(
            name, _federated_strategy, description="Trains where the data is.", override=True, **settings
        )


def _federated_strategy(**settings: Any) -> Any:
    """Build the strategy that a registered name stands for; only this imports it (and torch)."""
    return import_module("fedlightning.strategy").FederatedStrategy(**settings)


def _refuse_strategies(strategies: ModuleType) -> None:
    for name in STRATEGIES:
        strategies.StrategyRegistry.register(name, _refuse_other_class_tree, override=True)


def _refuse_other_class_tree() -> Any:
    raise TypeError(
        "pytorch_lightning.Trainer and lightning.Trainer are separate class trees, and fedlightning "
        "builds on the second: write `import lightning as L` and `L.Trainer(...)`."
    )


def _register_search_path(_: ModuleType) -> None:
    import_module("fedlightning.cli.search_path").register()


_ANNOUNCEMENTS: dict[str, Callable[[ModuleType], None]] = {
    "lightning.pytorch.strategies": _register_strategies,
    "pytorch_lightning.strategies": _refuse_strategies,
    "hydra": _register_search_path,
}


class _AfterImport(MetaPathFinder):
    """Finds a module the usual way, and has a function called each time it is imported.

    Args:
        functions: for each module name, what to call with the imported module.
    """

    def __init__(self, functions: dict[str, Callable[[ModuleType], None]]) -> None:
        self._functions = functions

    @override
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._functions:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _CallingLoader(spec.loader, self._functions[fullname])
        return spec


class _CallingLoader(Loader):
    """Executes a module with its own loader, gives that loader back to it, and calls the function."""

    def __init__(self, loader: Loader, function: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._function = function

    @override
    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    @override
    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._function(module)
