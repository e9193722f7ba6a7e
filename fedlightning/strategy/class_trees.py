"""``pytorch_lightning`` and ``lightning.pytorch`` are the same code twice: say so where they are mixed.

Two private functions of Lightning's are replaced here, and in no other place:
``tests/strategy/test_class_trees.py`` fails clearly when it moves.
"""

from __future__ import annotations

import sys
from functools import wraps
from typing import Any

from lightning.pytorch.strategies import Strategy
from lightning.pytorch.utilities import compile as unwrapping

OTHER = "pytorch_lightning"
CHECK = "_check_mixed_imports"
CONNECTOR = "trainer.connectors.accelerator_connector"
CHOICES = "_check_config_and_set_final_flags"


def explain_mixed_class_trees() -> None:
    """Have every Trainer say what is wrong with a module that inherits from the other class tree.

    Lightning looks at the module's own class alone, which is the user's, and then says no more than that a
    ``LightningModule`` is no ``LightningModule``. No strategy is asked before. A Trainer of the other tree,
    if that has been imported, says so of a strategy of this one.
    """
    _explain_trainers_of_the_other()
    check = getattr(unwrapping, CHECK)
    if hasattr(check, "__wrapped__"):
        return

    @wraps(check)
    def check_bases(instance: object) -> None:
        check(instance)
        _check_bases(instance)

    setattr(unwrapping, CHECK, check_bases)


def _explain_trainers_of_the_other() -> None:
    other = sys.modules.get(f"{OTHER}.{CONNECTOR}")
    connector = getattr(other, "_AcceleratorConnector", None)
    choose = getattr(connector, CHOICES, None)
    if choose is None or hasattr(choose, "__wrapped__"):
        return

    @wraps(choose)
    def check_strategy(self: Any, *args: Any, **flags: Any) -> None:
        given = flags.get("strategy", args[0] if args else None)
        if isinstance(given, Strategy):
            raise TypeError(
                f"{type(given).__name__} is a strategy for a Trainer of lightning.pytorch, but this Trainer "
                f"is one of {OTHER}, and the two are separate class trees. Write `import lightning as L` and "
                "`L.Trainer(...)`."
            )
        choose(self, *args, **flags)

    setattr(connector, CHOICES, check_strategy)


def _check_bases(instance: object) -> None:
    kinds = type(instance).__mro__
    if any(kind.__module__.partition(".")[0] == OTHER for kind in kinds):
        raise TypeError(
            f"{kinds[0].__qualname__} is a module of {OTHER}, but this Trainer is one of lightning.pytorch, "
            f"and the two are separate class trees. Write `import lightning as L` and inherit from "
            "`L.LightningModule`."
        )
