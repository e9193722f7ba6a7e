"""Every option of every group composes, and every value in it is a parameter of what it builds."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from fedlightning.algorithms import Pool
from tests.configs.composing import Compose

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
GROUPS = (
    "aggregation algorithm asynchronous bad_workers callbacks clock data debug experiment hydra logger model "
    "participation partition paths postprocess sampling server_optimizer server_scheduler "
    "strategy tolerance trainer"
)
OPTIONS = sorted(f"{file.parent.name}={file.stem}" for file in CONFIGS.glob("*/*.yaml"))


def targets(node: object) -> Iterator[DictConfig]:
    """Yield every node that is to be built."""
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield node
        for child in node.values():
            yield from targets(child)


def parameters(target: Callable[..., object]) -> set[str]:
    return set(inspect.signature(target).parameters)


def test_the_groups_are_those_of_the_design() -> None:
    assert sorted(folder.name for folder in CONFIGS.iterdir() if folder.is_dir()) == GROUPS.split()


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_composes_to_what_can_be_built(option: str, composed: Compose) -> None:
    cfg = composed(option)
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    for node in targets(cfg):
        unknown = (
            {str(key) for key in node} - parameters(get_object(node._target_)) - {"_target_", "_partial_"}
        )
        assert not unknown, f"{node._target_} has no {unknown}"


def test_an_experiment_s_own_values_win(tmp_path: Path, composed: Compose) -> None:
    """They were lost without a word when `_self_` stood last in train.yaml."""
    assert composed().name == "train"
    assert composed("experiment=digits_sequential").name == "digits_sequential"


def test_the_command_line_wins_over_the_experiment(composed: Compose) -> None:
    cfg = composed("experiment=digits_averaged", "strategy=federated_sequential", "name=mine")
    assert (cfg.strategy["update"], cfg.name) == ("sequential", "mine")


SIZES = {"poisson": 4, "power_of_choice": 4, "fixed_order": 4}


@pytest.mark.parametrize("option", sorted(file.stem for file in (CONFIGS / "sampling").glob("*.yaml")))
def test_a_way_of_sampling_draws_from_the_workers_of_the_experiments(option: str, composed: Compose) -> None:
    size = SIZES.get(option)
    overrides = ["sampling=" + option] + ([] if size is None else [f"strategy.cohort_size={size}"])
    strategy = instantiate(composed(*overrides).strategy)
    sampling = strategy.settings.sampling
    names = [f"worker-{number}" for number in range(10)]
    sampling.check(Pool(names, dict.fromkeys(names, 5)), size)
