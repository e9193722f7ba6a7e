"""Compose our configuration in this process, as the command does in its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from fedlightning.cli.search_path import config_dir

Compose = Callable[..., DictConfig]


@contextmanager
def composing(outputs: Path) -> Iterator[Compose]:
    """Give a function that composes the job from overrides, with its outputs in a folder."""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        yield lambda *overrides: compose("train", overrides=[*overrides, f"paths.output_dir={outputs}"])
