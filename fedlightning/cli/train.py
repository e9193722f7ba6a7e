"""The command `fedlightning-train`: Hydra composes the configuration, `job.run` does the work.

Torch and Lightning are imported by the job alone, so that `--help` and completion by tab answer at once.
"""

from __future__ import annotations

import sys

import hydra
from omegaconf import DictConfig

from fedlightning.cli import search_path
from fedlightning.cli.hints import hint_for

search_path.register()


# No config_path: the registered search path has our groups already.
@hydra.main(version_base="1.3", config_path=None, config_name="train")
def _train(cfg: DictConfig) -> float | None:
    from fedlightning.cli.job import run

    return run(cfg)


def main() -> None:
    """Run the training job that the command line describes.

    Raises:
        SystemExit: with a code other than zero if the configuration or the job failed.
    """
    try:
        _train()
    except SystemExit as exit_:
        if exit_.code == 1:  # Hydra has printed its error; argparse exits with 2
            print(hint_for(sys.argv[1:]), end="", file=sys.stderr)
        raise
