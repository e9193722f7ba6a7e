"""``pytorch_lightning`` and ``lightning.pytorch`` are the same code twice: say so where they are mixed.

A private function of Lightning's is replaced here, and in no other place:
``tests/strategy/test_class_trees.py`` fails clearly when it moves.
"""

from __future__ import annotations

from functools import wraps

from lightning.pytorch.utilities import compile as unwrapping

OTHER = "pytorch_lightning"
CHECK = "_check_mixed_imports"


def explain_mixed_class_trees() -> None:
    """Have every Trainer say what is wrong with a module that inherits from the other class tree.

    Lightning looks at the module's own class alone, which is the user's, and then says no more than that a
    ``LightningModule`` is no ``LightningModule``. No strategy is asked before.
    """
    check = getattr(unwrapping, CHECK)
    if hasattr(check, "__wrapped__"):
        return

    @wraps(check)
    def check_bases(instance: object) -> None:
        check(instance)
        _check_bases(instance)

    setattr(unwrapping, CHECK, check_bases)


def _check_bases(instance: object) -> None:
    kinds = type(instance).__mro__
    if any(kind.__module__.partition(".")[0] == OTHER for kind in kinds):
        raise TypeError(
            f"{kinds[0].__qualname__} is a module of {OTHER}, but this Trainer is one of lightning.pytorch, "
            f"and the two are separate class trees. Write `import lightning as L` and inherit from "
            "`L.LightningModule`."
        )
