"""What a visit leaves on the module beside tensors, and the next would not find in another process."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from fedlightning.local.metrics import put_states
from fedlightning.strategy.processes.packing import pack, unpack


class ModuleWatch:
    """Look whether the first visit with a module changes it.

    Args:
        module: The module, as the controller has sent it.
        table: Its parameters and buffers, which may change.
        device: Where it is.
    """

    def __init__(self, module: nn.Module, table: Sequence[Tensor], device: str) -> None:
        self._module = module
        self._table = table
        self._device = device
        self._before: bytes | None = None

    def begin_visit(self) -> None:
        """Note the module as it is, if this is the first visit."""
        if self._before is None:
            self._before = self._packed()

    def changed(self) -> str:
        """Say what of the module the first visit has changed, if there is something; ask after each visit."""
        before = self._before
        if not before:
            return ""
        after, self._before = self._packed(), b""
        if after == before:
            return ""
        was = unpack(before, self._table, self._device)
        return ", ".join(_differing(was, self._module)) or "what it holds"

    def _packed(self) -> bytes:
        put_states(self._module, ())
        table = {id(t): n for n, t in enumerate([*self._module.parameters(), *self._module.buffers()])}
        return pack(self._module, table)


def _differing(was: nn.Module, now: nn.Module) -> list[str]:
    """Return the names of attributes that two copies of a module do not share."""
    others = dict(was.named_modules())
    names = []
    for path, part in now.named_modules():
        before = vars(others[path]) if path in others else {}
        for name, value in vars(part).items():
            if name not in _LEFT_TO_LIGHTNING and (name not in before or pack(before[name]) != pack(value)):
                names.append(f"{path}.{name}".lstrip("."))
    return names


_LEFT_TO_LIGHTNING = frozenset({"_parameters", "_buffers", "_modules", "_trainer", "_fabric"})
