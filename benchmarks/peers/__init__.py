"""The workloads of `benchmarks.simulation` in other systems, as their users write them, a file per system.

None is needed: what is not installed is skipped. How to install them is in docs/fast.md.
"""

from __future__ import annotations

from benchmarks.peers.peer import Peer

PEERS = {
    "trainer": Peer("by a new Trainer per visit", "trainer_per_visit"),
    "pfl": Peer("in pfl", "in_pfl", "pfl"),
    "fluke": Peer("in fluke", "in_fluke", "fluke-fl"),
    "fedlab": Peer("in FedLab", "in_fedlab", "fedlab"),
    "flower": Peer("in Flower", "in_flower", "flwr"),
    # A process per worker, each with its own PyTorch.
    "nvflare": Peer("in NVFlare", "in_nvflare", "nvflare", most_workers=10),
}
