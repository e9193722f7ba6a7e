"""How pointers show themselves in a notebook: where they lead and what is known here, never a value."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape


def as_table(title: str, facts: Mapping[str, object]) -> str:
    """Write facts as an HTML table.

    Args:
        title: Its heading; text, not HTML.
        facts: What is known, by name; likewise.

    Example:
        >>> as_table("pointer", {"at": "<bob>"})
        '<table><caption>pointer</caption><tr><th>at</th><td>&lt;bob&gt;</td></tr></table>'
    """
    rows = (f"<tr><th>{escape(name)}</th><td>{escape(str(fact))}</td></tr>" for name, fact in facts.items())
    return f"<table><caption>{escape(title)}</caption>{''.join(rows)}</table>"
