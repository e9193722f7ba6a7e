"""Which combiner a round needs, wherever its updates are combined."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fedlightning.algorithms.attacks import Collusion, CollusionCombiner
from fedlightning.algorithms.combining import Combiner, RuleCombiner
from fedlightning.algorithms.postprocessing import DecodingCombiner, Postprocessing
from fedlightning.algorithms.robust import AggregationRule
from fedlightning.algorithms.update import Update, UpdateMean


def open_combiner(
    rule: AggregationRule | None,
    start: Sequence[Tensor] = (),
    chain: Postprocessing | None = None,
    trained: Sequence[int] = (),
    collusion: Collusion | None = None,
    root: Update | None = None,
) -> Combiner:
    """Return what collects the updates of a round.

    Args:
        rule: How they are combined; ``None`` for the weighted mean.
        start: What all workers start from, where a rule or a chain needs it.
        chain: How updates are processed before they leave; ``None`` for not at all.
        trained: Positions of the trained parameters, where a chain needs them.
        collusion: What bad workers agree to send; ``None`` where there are none.
        root: What the server has trained on data of its own, for a rule that needs it.
    """
    combiner: Combiner = UpdateMean() if rule is None else RuleCombiner(rule, start, root)
    if collusion is not None:
        combiner = CollusionCombiner(combiner, collusion, start)
    return combiner if chain is None else DecodingCombiner(combiner, chain, start, trained)
