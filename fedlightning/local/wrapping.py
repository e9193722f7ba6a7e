"""A procedure around another one, for what is done before or after an algorithm's own part of a visit."""

from __future__ import annotations

from typing_extensions import override

from fedlightning.local.procedure import LocalModel, LocalProcedure, LocalTraining


class WrappedProcedure(LocalProcedure):
    """Answer as the procedure within does, but for ``run``; a subclass is a frozen dataclass.

    Attributes:
        procedure: The one within; ``None`` to train, and nothing else.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Twice(WrappedProcedure):
        ...     procedure: LocalProcedure | None
        ...     def run(self, local):
        ...         self.carry_out(local)
        ...         self.carry_out(local)
        >>> Twice(None).sends, Twice(None).revisits
        (False, False)
    """

    procedure: LocalProcedure | None

    @property
    @override
    def sends(self) -> bool:
        return self.procedure is not None and self.procedure.sends

    @property
    @override
    def revisits(self) -> bool:
        return self.procedure is not None and self.procedure.revisits

    def carry_out(self, local: LocalTraining) -> None:
        """Do what the procedure within does."""
        if self.procedure is None:
            local.train()
        else:
            self.procedure.run(local)

    @override
    def personalise(self, local: LocalModel) -> None:
        if self.procedure is not None:
            self.procedure.personalise(local)
