"""The workloads in NVFlare's simulator: its FedAvg, a process per site, its client API with a script there.

The server runs in one more process. What counts is what it and the sites compute, by `nvflare_site`.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.workflows.fedavg import FedAvg
from nvflare.job_config.api import FedJob
from nvflare.job_config.script_runner import ScriptRunner
from torch import nn
from torch.utils.data import TensorDataset
from typing_extensions import override

from benchmarks.measuring import family_seconds
from benchmarks.peers import nvflare_site
from benchmarks.peers.nvflare_site import GETS_READY, Site
from benchmarks.peers.peer import Took
from benchmarks.workloads import LEARNING_RATE, Orders, Workload

NETWORK, RESULT, TOOK = "network.pt", "result.pt", "took.json"


class Controller(FedAvg):
    """Keep networks in files of our own, and tell what the rounds took, which begin when all sites are there.

    Args:
        folder: Where the files are.
        num_clients: How many sites take part in each round.
        num_rounds: How many rounds there are.
    """

    def __init__(self, folder: str, num_clients: int, num_rounds: int) -> None:
        super().__init__(num_clients=num_clients, num_rounds=num_rounds, persistor_id="")
        self.folder = folder
        self._ready = 0.0

    @override
    def load_model(self) -> FLModel:
        parameters = torch.load(Path(self.folder, NETWORK))
        return FLModel(params={name: value.numpy() for name, value in parameters.items()})

    @override
    def save_model(self, model: FLModel) -> None:
        parameters = {name: torch.as_tensor(value) for name, value in model.params.items()}
        torch.save(parameters, Path(self.folder, RESULT))

    @override
    def sample_clients(self, num_clients: int | None = None) -> list[str]:
        if self.current_round == GETS_READY:
            self._ready = family_seconds()
        sites: list[str] = super().sample_clients(num_clients)
        return sites

    @override
    def run(self) -> None:
        super().run()
        took = {"once": self._ready, "rounds": family_seconds() - self._ready}
        Path(self.folder, TOOK).write_text(json.dumps(took))


def train(work: Workload, net: nn.Module, dataset: TensorDataset, orders: Orders) -> Took:
    """Train in place; see `Train`."""
    with TemporaryDirectory() as folder:
        torch.save(net.state_dict(), Path(folder, NETWORK))
        _settle(folder, work, dataset, orders)
        job = FedJob(work.name)
        job.to_server(Controller(folder, work.cohort, GETS_READY + work.rounds))
        job.to_clients(ScriptRunner(nvflare_site.__file__, f"--folder {folder}"))
        job.simulator_run(f"{folder}/workspace", work.workers, threads=work.workers, log_config="ERROR")
        net.load_state_dict(torch.load(Path(folder, RESULT)))
        return Took(**json.loads(Path(folder, TOOK).read_text()))


def _settle(folder: str, work: Workload, dataset: TensorDataset, orders: Orders) -> None:
    """Write down what each site has: all of them take part in each round."""
    for worker in range(work.workers):
        visits = [
            visits[cohort.index(worker)] for cohort, visits in zip(orders.cohorts, orders.rounds, strict=True)
        ]
        data = [tuple(tensor[order] for tensor in dataset.tensors) for order in visits]
        site = Site(work.make_net(), data, work.batch_size, LEARNING_RATE)
        torch.save(vars(site), nvflare_site.file(folder, f"site-{worker + 1}"))
