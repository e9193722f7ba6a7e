"""Set a report's contents as one HTML page. How it looks is in `page.html.jinja`."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fedlightning.callbacks.report.contents import Contents
from fedlightning.callbacks.report.pictures import (
    picture_of_bytes,
    picture_of_metrics,
    picture_of_workers,
)

_WORDS = ("worker", "labels", "direction", "kind", "item", "rule", "round", "reason")


def as_html(contents: Contents) -> str:
    """Return the page.

    Args:
        contents: What it says. Names and values are escaped: they come from users and workers.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("page.html.jinja")
    return template.render(
        report=contents,
        words=_WORDS,
        began=f"{contents.began:%d %B %Y, %H:%M}",
        took=_duration(contents.took.total_seconds()),
        workers_picture=picture_of_workers(contents.workers),
        metrics_picture=picture_of_metrics(contents.history),
        bytes_picture=picture_of_bytes(contents.history),
    )


def _duration(seconds: float) -> str:
    """Write a duration.

    Example:
        >>> _duration(3.21), _duration(75), _duration(7320)
        ('3.2 s', '1 min 15 s', '2 h 2 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
