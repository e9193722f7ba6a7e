"""The composed configuration as a fixture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.configs.composing import Compose, composing


@pytest.fixture
def composed(tmp_path: Path) -> Iterator[Compose]:
    """Return a function that composes the job from overrides."""
    with composing(tmp_path) as compose:
        yield compose
