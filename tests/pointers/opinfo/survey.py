"""Go through torch's database of operators, form by form, and count. What is expected is in the test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from fedlightning.pointers.adjusting import adjust_torch
from fedlightning.pointers.overridable import MADE_OVERRIDABLE
from tests.operators import samples_of
from tests.pointers.opinfo.comparison import Outcome, Verdict, judge
from tests.pointers.opinfo.forms import FORMS, Sample


@dataclass
class Survey:
    """Collect how operators fared, by form.

    Attributes:
        counts: Operators per form and verdict; an operator counts as its worst sample.
        shortfalls: Form and operator of everything that is not equal, with the reason.
        operators: The names of those that were tried.
    """

    counts: dict[str, Counter[Verdict]] = field(default_factory=lambda: {form: Counter() for form in FORMS})
    shortfalls: dict[tuple[str, str], Outcome] = field(default_factory=dict)
    operators: list[str] = field(default_factory=list)

    def enter(self, form: str, operator: str, outcomes: list[Outcome]) -> None:
        """Enter how an operator's samples fared in one form."""
        worst = min(outcomes, key=lambda outcome: _WORST_FIRST.index(outcome.verdict))
        self.counts[form][worst.verdict] += 1
        if worst.verdict in ("close", "refused", "wrong"):
            self.shortfalls[form, operator] = worst

    def __str__(self) -> str:
        shown: tuple[Verdict, ...] = ("equal", "close", "refused", "wrong")
        lines = [f"{'form':<18} {'of':>7} " + " ".join(f"{verdict:>7}" for verdict in shown)]
        for form, count in self.counts.items():
            numbers = [sum(count[verdict] for verdict in shown), *(count[verdict] for verdict in shown)]
            lines.append(f"{form:<18} " + " ".join(f"{number:>7}" for number in numbers))
        for (form, operator), outcome in self.shortfalls.items():
            lines.append(f"{outcome.verdict}: {form} of {operator}: {outcome.reason}")
        return "\n".join(lines)


_WORST_FIRST: tuple[Verdict, ...] = ("wrong", "refused", "close", "equal", "not there")


def survey(*, part: int = 0, parts: int = 1, samples: int | None = 1) -> Survey:
    """Compare operators on pointers with local ones.

    Args:
        part: Which share of the database, counted from 0.
        parts: Into how many shares it is dealt.
        samples: How many samples per operator; all that the database has, if None.
    """
    # Imported here because it takes seconds, which a run of other tests need not spend.
    from torch.testing._internal.common_methods_invocations import op_db

    adjust_torch()
    found = Survey()
    for operator in op_db[part::parts]:
        # The database may have been imported before torch's function was exchanged, which it is by now.
        operator.op = MADE_OVERRIDABLE.get(f"torch.{operator.name}", operator.op)
        drawn = list(islice(_samples(operator), samples))
        found.operators += [full_name(operator)] if drawn else []
        for form in FORMS if drawn else ():
            found.enter(form, full_name(operator), [judge(operator, form, sample) for sample in drawn])
    return found


def full_name(operator: Any) -> str:
    """Return the name of an operator, with that of its variant."""
    return f"{operator.name}.{operator.variant_test_name}".rstrip(".")


def _samples(operator: Any) -> Iterator[Sample]:
    """Give float32 samples that have a tensor among their arguments; others have nothing to be sent."""
    if torch.float32 not in operator.supported_dtypes("cpu") or operator.name.startswith("jiterator"):
        return
    for sample in samples_of(operator, requires_grad=operator.supports_autograd):
        arguments: Sample = (sample.input, sample.args, sample.kwargs)
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(arguments)):
            yield arguments
