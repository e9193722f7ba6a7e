"""What runs at each site of NVFlare's simulator: the script that its user writes. Nothing of the server's.

It stands alone, so that no site has to import the benchmark: NVFlare copies it into each site's folder.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import nvflare.client as flare
import torch
from nvflare.app_common.abstract.fl_model import FLModel
from torch import Tensor, nn
from torch.nn import functional as F

# In a round before the benchmark's, sites start, train for nothing, and give back what they got.
GETS_READY = 1


@dataclass(frozen=True)
class Site:
    """Hold what a site has.

    Args:
        net: The network.
        visits: Samples and labels for each round, in the order in which they are seen.
        batch_size: Samples per local step.
        learning_rate: That of plain SGD.
    """

    net: nn.Module
    visits: list[tuple[Tensor, ...]]
    batch_size: int
    learning_rate: float


def file(folder: str, site: str) -> Path:
    """Return where a site's things are."""
    return Path(folder, f"{site}.pt")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", required=True)
    torch.set_num_threads(1)
    flare.init()
    # A module, which the benchmark has just written.
    site = Site(**torch.load(file(parser.parse_args().folder, flare.get_site_name()), weights_only=False))
    while flare.is_running():
        model = flare.receive()
        if model is None:
            break
        site.net.load_state_dict({name: torch.as_tensor(value) for name, value in model.params.items()})
        number = model.current_round - GETS_READY
        _local_epoch(site, *site.visits[max(number, 0)])
        flare.send(FLModel(params=site.net.state_dict() if number >= 0 else model.params))


def _local_epoch(site: Site, x: Tensor, y: Tensor) -> None:
    optimizer = torch.optim.SGD(site.net.parameters(), lr=site.learning_rate)
    for a, b in zip(torch.split(x, site.batch_size), torch.split(y, site.batch_size), strict=True):
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(site.net(a), b))
        optimizer.step()


if __name__ == "__main__":
    main()
