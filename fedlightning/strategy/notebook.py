"""How a strategy shows itself in a notebook: its settings, its workers and the last rounds."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from fedlightning.strategy.history import History
from fedlightning.strategy.wording import bars, counted

_MAX_BARS = 60


def strategy_as_html(settings: str, workers: Mapping[str, int] | None, history: History) -> str:
    """Write a strategy as HTML.

    Args:
        settings: The strategy as code.
        workers: Samples by worker name; None before the first fit.
        history: What has happened.
    """
    parts = [f"<p><code>{escape(settings)}</code></p>"]
    if workers is not None:
        samples = f"{counted(len(workers), 'worker')}, {counted(sum(workers.values()), 'sample')}"
        parts.append(f"<p>{samples} <code>{bars(list(workers.values())[:_MAX_BARS])}</code></p>")
    if history:
        parts.append(history._repr_html_())
    return "".join(parts)
