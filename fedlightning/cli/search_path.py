"""Where the configuration groups are, and how Hydra applications, ours and others, get to them."""

from __future__ import annotations

from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from typing_extensions import override

_PACKAGE = Path(__file__).resolve().parents[1]


def config_dir() -> Path:
    """Return the folder of the configuration groups: inside the package (wheel) or beside it (checkout).

    Raises:
        FileNotFoundError: if there is none at either place.
    """
    # Inside first: beside an installed package may lie the `configs` of some other package.
    candidates = (_PACKAGE / "configs", _PACKAGE.parent / "configs")
    for folder in candidates:
        if (folder / "train.yaml").is_file():
            return folder
    places = " or ".join(map(str, candidates))
    raise FileNotFoundError(f"fedlightning's configs/ is not at {places}; reinstall fedlightning.")


def register() -> None:
    """Let every Hydra application in this process compose our groups, after its own."""
    Plugins.instance().register(FedlightningSearchPath)


class FedlightningSearchPath(SearchPathPlugin):
    """Appends our folder to Hydra's search path, so that an application's own groups come first."""

    @override
    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append(provider="fedlightning", path=f"file://{config_dir()}")
