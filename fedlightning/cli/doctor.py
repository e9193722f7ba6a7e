"""The subcommand `doctor`: checks an installation, line by line. The round that it trains: `checkup`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import distributions, requires, version
from platform import platform, python_version

from packaging.requirements import Requirement

_OPTIONAL = {
    "matplotlib": "pictures and reports",
    "rich": "tables in colour and the rich progress bar",
    "scikit-learn": "the digits experiments",
    "tensorboard": "logging to TensorBoard",
}


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Args:
        name: What was looked at.
        text: What was found.
        well: Whether it is as it should be; None for something that may be missing.
    """

    name: str
    text: str
    well: bool | None = True

    def __str__(self) -> str:
        mark = {True: "✓", False: "✗", None: "-"}[self.well]
        return f"  {mark} {self.name:<26} {self.text}"


def examine() -> int:
    """Print versions, configurations and the result of one round of two workers.

    Returns:
        0 if all is well, 1 if not.
    """
    print(f"fedlightning doctor ({platform()})")
    findings = []
    for check in (_versions, _extras, _configurations, _one_round):
        for finding in _carried_out(check):
            print(finding, flush=True)
            findings.append(finding)
    ill = [finding.name for finding in findings if finding.well is False]
    print(f"Not well: {', '.join(ill)}." if ill else "All is well.")
    return 1 if ill else 0


def _carried_out(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as error:  # noqa: BLE001 - whatever is broken is what a doctor reports
        yield Finding(check.__name__.strip("_").replace("_", " "), f"{type(error).__name__}: {error}", False)


def _versions() -> Iterator[Finding]:
    yield Finding("python", python_version())
    yield Finding("fedlightning", version("fedlightning"))
    for requirement in map(Requirement, requires("fedlightning") or ()):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _version_of(requirement)


def _version_of(requirement: Requirement) -> Finding:
    found = version(requirement.name)
    if requirement.specifier.contains(found, prereleases=True):
        return Finding(requirement.name, found)
    return Finding(requirement.name, f"{found}, but fedlightning needs {requirement.specifier}", False)


def _extras() -> Iterator[Finding]:
    for name, purpose in _OPTIONAL.items():
        found = next(iter(distributions(name=name)), None)
        missing = f"not installed; for {purpose}: pip install 'fedlightning[examples]'"
        yield Finding(name, missing, None) if found is None else Finding(name, found.version)


def _configurations() -> Iterator[Finding]:
    from hydra import compose, initialize_config_dir

    from fedlightning.cli.search_path import config_dir

    folder = config_dir()
    experiments = sorted(file.stem for file in (folder / "experiment").glob("*.yaml"))
    with initialize_config_dir(str(folder), version_base="1.3"):
        for experiment in experiments:
            compose("train", overrides=[f"experiment={experiment}", "paths.output_dir=."])
    yield Finding("configurations", f"{len(experiments)} experiments in {folder}")


def _one_round() -> Iterator[Finding]:
    from fedlightning.cli.checkup import EXPECTED, train_one_round

    weight = train_one_round()
    yield Finding(
        "one round of two workers",
        f"the module's weight is {weight}, and computed by hand {EXPECTED}",
        weight == EXPECTED,
    )
