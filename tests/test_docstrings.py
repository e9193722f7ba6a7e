"""Every public name says what it is for, what each of its arguments is, and shows its use and outcome."""

from __future__ import annotations

import doctest
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest

from tests.documents import PAGES, blocks

PACKAGES = (
    "fedlightning.algorithms",
    "fedlightning.algorithms.attacks",
    "fedlightning.algorithms.postprocessing",
    "fedlightning.callbacks",
    "fedlightning.data",
    "fedlightning.data.datasets",
    "fedlightning.data.partition",
    "fedlightning.examples",
    "fedlightning.pointers",
    "fedlightning.strategy",
    "fedlightning.testing",
    "fedlightning.workers",
    "fedlightning.workers.remote",
)


def _public() -> Iterator[Any]:
    for package in PACKAGES:
        module = import_module(package)
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                yield pytest.param(value, id=f"{package.removeprefix('fedlightning.')}.{name}")


PUBLIC = list(_public())


def described(value: Any) -> str:
    """What the docstrings of a name say, and those of its bases, which describe inherited arguments."""
    owners = inspect.getmro(value)[:-1] if inspect.isclass(value) else (value,)
    return "\n".join(owner.__doc__ or "" for owner in owners)


@pytest.mark.parametrize("value", PUBLIC)
def test_a_public_name_has_a_docstring_of_its_own(value: Any) -> None:
    assert value.__doc__
    # A dataclass without one is given its signature by Python.
    assert not value.__doc__.startswith(f"{value.__name__}(")


def undescribed(value: Any) -> list[str]:
    """Arguments that no docstring mentions in a line of their own."""
    if inspect.isclass(value) and issubclass(value, BaseException) and "__init__" not in vars(value):
        return []
    try:
        names = inspect.signature(value).parameters
    except ValueError:  # one of torch's own signatures, in C
        return []
    said = described(value)
    return [
        name
        for name, parameter in names.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and not re.search(rf"^\s+{name}\b.*:", said, re.MULTILINE)
    ]


@pytest.mark.parametrize("value", PUBLIC)
def test_every_argument_is_described(value: Any) -> None:
    assert undescribed(value) == []


def test_an_argument_that_is_not_described_is_found() -> None:
    def send(value: int, to: str) -> None:
        """Send something.

        Args:
            value: What.
        """

    assert undescribed(send) == ["to"]


@pytest.mark.parametrize("value", [value for value in PUBLIC if inspect.isclass(value.values[0])])
def test_public_methods_have_docstrings(value: Any) -> None:
    fields = getattr(value, "__dataclass_fields__", {})  # one may hold a function, and is no method then
    members = {name: member for name, member in vars(value).items() if name not in fields}
    own = [name for name, member in members.items() if not name.startswith("_") and _is_method(member)]
    # What overrides a documented method does what that says.
    assert [name for name in own if not inspect.getdoc(getattr(value, name))] == []


def _is_method(member: Any) -> bool:
    return inspect.isfunction(member) or isinstance(member, (property, classmethod, staticmethod))


ON_A_PAGE = """
    callbacks.FederatedMetrics callbacks.FederatedProgressBar callbacks.FederationPlot
    callbacks.FederationReport callbacks.FederationTable callbacks.RunFingerprint
    strategy.replay
"""
# Names without an example of their own, each group with the reason.
EXEMPT = {
    "a record, made by a call whose own example shows it": """
        algorithms.Assignment algorithms.Cohort algorithms.Collected algorithms.Draw algorithms.Job
        algorithms.Pool data.datasets.TrainVal
        strategy.EvaluatedWorker strategy.Evaluation strategy.RoundRecord strategy.RoundTimes
        strategy.VisitRecord strategy.VisitStart
        strategy.WorkerSummary testing.Check workers.Capabilities workers.Decision workers.Egress
        workers.Entry workers.Program workers.ResultShape workers.Source workers.Traffic
    """,
    "an interface, shown by what implements it": """
        algorithms.Algorithm algorithms.Combiner algorithms.FixedStatistics algorithms.Losses
        algorithms.Sampling algorithms.Schedule
        algorithms.attacks.Attack algorithms.attacks.Collusion algorithms.attacks.DataAttack
        algorithms.attacks.UpdateAttack algorithms.attacks.attacked data.FeatureSkew
        data.partition.FeatureSkew
        algorithms.postprocessing.Keeper algorithms.postprocessing.Postprocessor
        algorithms.postprocessing.ProcessedTraining workers.Mechanism workers.Reply workers.Scope
    """,
    "used in a fit, which is shown on a page that is executed": ON_A_PAGE,
    "reads what another package ships, which need not be installed": """
        data.datasets.Shakespeare data.datasets.load_mnist5k data.datasets.load_shakespeare
        data.datasets.load_speakers
    """,
    "used as what stands beside it, which has an example": """
        callbacks.FederatedRichProgressBar workers.remote.accompany_modules workers.remote.register_family
    """,
}
EXEMPT_NAMES = {name for names in EXEMPT.values() for name in names.split()}


def needs_example(parameter: Any) -> bool:
    """Exceptions are shown where they are raised; all else needs an example unless it is exempt."""
    value = parameter.values[0]
    return not (inspect.isclass(value) and issubclass(value, BaseException))


NEEDING = [parameter for parameter in PUBLIC if needs_example(parameter)]


def shown(value: Any) -> list[doctest.Example]:
    """What a docstring shows together with its output; pytest executes it with the package."""
    (found,) = doctest.DocTestFinder(recurse=False).find(value, value.__name__)
    return [example for example in found.examples if example.want]


@pytest.mark.parametrize("value", [parameter for parameter in NEEDING if parameter.id not in EXEMPT_NAMES])
def test_a_public_name_shows_its_use_and_the_outcome(value: Any) -> None:
    assert shown(value)


def test_exemptions_are_public_names_without_an_example() -> None:
    without = {parameter.id for parameter in NEEDING if not shown(parameter.values[0])}
    assert without == EXEMPT_NAMES


def test_what_a_page_shows_instead_is_there() -> None:
    code = "\n".join(block.code for page in PAGES for block in blocks(page))
    assert [name for name in ON_A_PAGE.split() if name.rpartition(".")[2] not in code] == []
