"""Which Python modules a name in a message may import: our own, and those that the process's starter lists.

Programs and records are found by ``module:name``. What is not listed is not imported, and so not known.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable

# They are imported when first named: they bring Lightning, which takes seconds.
OUR_OWN = ("fedlightning.data", "fedlightning.local", "fedlightning.algorithms")

_offered: tuple[str, ...] = OUR_OWN


def offer(modules: Iterable[str]) -> None:
    """Import Python modules, which registers their programs, and offer all that is in them beside our own.

    Args:
        modules: Modules or packages, by their dotted names.

    Raises:
        ImportError: One cannot be imported.
    """
    global _offered
    _offered = (*OUR_OWN, *modules)
    for module in modules:
        importlib.import_module(module)


def import_offered(name: str) -> None:
    """Import the module that a name begins with, if this process offers it; else do nothing.

    Args:
        name: ``module:name``, as it came over the wire.
    """
    module, colon, _ = name.partition(":")
    offered = any(module == known or module.startswith(f"{known}.") for known in _offered)
    if colon and offered and "__" not in module:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError:
            # There is nothing of this name, which is what the worker then says.
            return
