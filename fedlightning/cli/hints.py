"""Tells who mistyped an option what there is instead; Hydra's own message says only that it is unknown."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig

from fedlightning.cli.search_path import config_dir


def hint_for(arguments: Sequence[str]) -> str:
    """Name, for each override of an unknown option, the nearest ones that exist.

    Args:
        arguments: the command line without the program's name.

    Returns:
        One line per unknown option; nothing if every option is known or the command line cannot be parsed.
    """
    texts = [argument for argument in arguments if not argument.startswith("-") and "=" in argument]
    try:
        overrides = OverridesParser.create().parse_overrides(texts)
    except HydraException:
        return ""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        choices, values = [], []
        for override, text in zip(overrides, texts, strict=True):
            options = _options(override.key_or_group)
            if override.value() in options:
                choices.append(text)
            elif not options and not override.is_add() and not override.is_force_add():
                values.append(override.key_or_group)
        config = _compose(choices)
    return "".join(_hint(config, key) for key in values)


def _options(group: str) -> list[str]:
    hydra = GlobalHydra.instance().hydra
    return hydra.config_loader.get_group_options(group) if hydra is not None else []


def _compose(choices: list[str]) -> DictConfig:
    try:
        return compose("train", overrides=choices)
    except HydraException:  # choices that do not fit each other: the hint is about the default job
        return compose("train")


def _hint(config: DictConfig, key: str) -> str:
    node: object = config
    where = "the job"
    for part in key.split("."):
        if not isinstance(node, DictConfig):
            return f"{where} is the single value {node!r} and has no option {part!r}.\n"
        names = sorted(str(name) for name in node if not str(name).startswith("_"))
        if part not in node:
            near = get_close_matches(part, names, n=1)
            question = f" Did you mean {near[0]!r}?" if near else ""
            return f"{where} has no option {part!r}.{question} There are: {', '.join(names)}.\n"
        node, where = node[part], part
    return ""
