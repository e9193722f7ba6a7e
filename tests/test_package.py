"""The package's door: lazy names, and registration with Lightning and Hydra in either order of import."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import fedlightning
from fedlightning import _register


def python(code: str) -> str:
    """Run code in a fresh interpreter and return what it printed."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_importing_the_package_imports_none_of_the_large_libraries() -> None:
    heavy = "{'torch', 'lightning', 'torchmetrics', 'hydra', 'numpy'}"
    assert python(f"import sys, fedlightning; print({heavy} & set(sys.modules))") == "set()"


def test_every_public_name_resolves() -> None:
    for name in (*fedlightning._NAMES, *fedlightning._SUBPACKAGES):
        assert getattr(fedlightning, name) is not None
        assert name in dir(fedlightning)


def test_the_lazy_table_and_the_type_checkers_imports_agree() -> None:
    tree = ast.parse(inspect.getsource(fedlightning))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    subpackages = dict.fromkeys(fedlightning._SUBPACKAGES, "fedlightning")
    assert typed == {**fedlightning._NAMES, **subpackages}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'fedlightning' has no attribute 'FederatedStrategie'"):
        fedlightning.FederatedStrategie  # noqa: B018  (the access is what is tested)


@pytest.mark.parametrize(
    "imports",
    [
        # Libraries probe for each other with find_spec; that must not use up the announcement.
        "import fedlightning, importlib.util; importlib.util.find_spec('lightning'); import lightning as L",
        "import lightning as L; import fedlightning",
    ],
    ids=["ours first", "lightning first"],
)
def test_the_trainer_knows_the_strategies_in_either_order_of_import(imports: str) -> None:
    code = f"""
{imports}
import lightning.pytorch.strategies as strategies
print([name for name in strategies.StrategyRegistry if name.startswith("federated")])
print(type(strategies.__spec__.loader).__name__, type(strategies.__loader__).__name__)
for name in ("federated", "federated_averaged", "federated_sequential"):
    strategy = L.Trainer(strategy=name, accelerator="cpu", logger=False, enable_checkpointing=False).strategy
    assert type(strategy) is fedlightning.FederatedStrategy, strategy
"""
    names, loaders = python(code).splitlines()
    assert names == "['federated', 'federated_averaged', 'federated_sequential']"
    assert loaders == "SourceFileLoader SourceFileLoader"


def test_the_other_class_tree_is_refused_by_name() -> None:
    import pytorch_lightning

    with pytest.raises(TypeError, match="write `import lightning as L`"):
        pytorch_lightning.Trainer(strategy="federated", accelerator="cpu", logger=False)


def test_a_function_is_called_after_each_import_with_the_finished_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "announced_to.py").write_text("answer = 42\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    answers: list[int] = []
    finder = _register._AfterImport({"announced_to": lambda module: answers.append(module.answer)})
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])

    module = importlib.import_module("announced_to")
    assert answers == [42]
    assert inspect.getsource(module) == "answer = 42\n"

    importlib.reload(module)
    assert answers == [42, 42]
