"""The workers of one run with what lies there: shard, stream of batches, memory. Reached by pointer only.

Who trains when is drawn up in ``algorithms``; this module only places things and looks them up. Who there is,
and with how much data, is for ``roster`` to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any

from typing_extensions import override

from fedlightning.algorithms import Pool
from fedlightning.data.pool import RowPool
from fedlightning.local.kept_states import KeptStates
from fedlightning.local.lone_stream import open_lone_stream
from fedlightning.local.memory import (
    OptimizerState,
    WorkerMemory,
    create_memory,
    export_memory,
    import_memory,
)
from fedlightning.local.streams import export_stream, import_stream, open_stream
from fedlightning.strategy.accounts import Accounts
from fedlightning.strategy.roster import Roster
from fedlightning.workers import VirtualWorker, Worker, WorkerLost
from fedlightning.workers.joint import Account, object_at


@dataclass(frozen=True)
class Member:
    """One worker of a federation.

    Args:
        worker: The worker.
        shard: Pointer to its data and how it is loaded.
        stream: Pointer to its stream of batches.
        memory: Pointer to what it keeps between visits.
        samples: Number of its samples.
        batches: Number of batches in its local epoch.
    """

    worker: Worker
    shard: Any
    stream: Any
    memory: Any
    samples: int
    batches: int


class Members(Mapping[str, Member]):
    """Map names to members, each of which is made when it is first asked for.

    Args:
        names: Names of all workers, in order; not copied, since there may be a million.
        make: Makes the member of a name.
    """

    def __init__(self, names: Mapping[str, object], make: Callable[[str], Member]) -> None:
        self._names = names
        self._made: dict[str, Member] = {}
        self._make = make

    @override
    def __getitem__(self, name: str) -> Member:
        member = self._made.get(name)
        if member is None:
            if name not in self._names:
                raise KeyError(name)
            member = self._made[name] = self._make(name)
        return member

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    @override
    def __len__(self) -> int:
        return len(self._names)

    @override
    def __contains__(self, name: object) -> bool:
        return name in self._names

    def already(self, name: str) -> Member | None:
        """Return the member of a name if somebody has asked for it before."""
        return self._made.get(name)

    def made(self) -> dict[str, Member]:
        """Return those that were asked for so far, in the order of all."""
        if not self._made:
            return {}  # as in most rounds of many workers, through whom nobody has to go for that
        return {name: self._made[name] for name in self._names if name in self._made}


class Federation:
    """The members of one run, by name.

    A worker that nobody has asked for yet costs a name and a number of samples: a round's price is that of
    its cohort, however many workers there are.

    Args:
        roster: Who there is, with how much data.
        seed: Seed of the run.
        optimizer_state: What becomes of local optimizer states between visits.
        goes_round: Whether a worker that is alone starts anew where its data ends within an epoch.
        alone: Whether the Trainer's loop is about its one worker; ``None`` for where there is only one.
    """

    def __init__(
        self,
        roster: Roster,
        *,
        seed: int,
        optimizer_state: OptimizerState,
        goes_round: bool = False,
        alone: bool | None = None,
    ) -> None:
        self.alone = len(roster.samples) == 1 if alone is None else alone
        if not self.alone:
            _refuse_idle(roster.batches)
        self.samples: Mapping[str, int] = roster.samples
        self.batches: Mapping[str, int] = roster.batches
        self.members = Members(roster.samples, self._settle)
        self._roster = roster
        self._seed = seed
        self._optimizer_state = optimizer_state
        self._goes_round = goes_round
        self._kept: dict[str, Mapping[str, Any]] = {}
        self._keep_more: frozenset[str] = frozenset()
        self._tagged: dict[tuple[str, ...], frozenset[str]] = {}
        self._accounts = Accounts()
        self._states = KeptStates(self._memory_of) if optimizer_state == "keep" else None
        if roster.at_once:
            list(self.members.values())

    @cached_property
    def fingerprint(self) -> str | None:
        """A digest of who has which samples; ``None`` where the data was not divided here."""
        return self._roster.fingerprint()

    @cached_property
    def digest(self) -> str:
        """Who has how many samples, in a few words."""
        return digest_of(self.samples)

    @property
    def in_process(self) -> bool:
        """Whether all workers are at hand in this process, and at nothing else than what is asked of them."""
        return all(isinstance(member.worker, VirtualWorker) for member in self.members.made().values())

    @cached_property
    def pool(self) -> Pool:
        """What ways of sampling may know of the workers; tags, of those that exist before the first round."""
        names = sorted(self.samples)
        if not self._roster.at_once:
            return Pool(names, self.samples)
        return Pool(names, self.samples, tagged=self._holders_of)

    def _holders_of(self, tags: tuple[str, ...]) -> frozenset[str]:
        """Return the workers that held an object with all of some tags when they were first asked for."""
        if tags not in self._tagged:
            members = self.members.items()
            self._tagged[tags] = frozenset(name for name, m in members if m.worker.search(*tags))
        return self._tagged[tags]

    def _settle(self, name: str) -> Member:
        """Place at a worker what lies there for the whole run."""
        worker, shard = self._roster.place(name)
        member = Member(
            worker=worker,
            shard=shard,
            stream=self._open_stream(worker, shard),
            memory=worker.start(create_memory, self._optimizer_state),
            samples=self.samples[name],
            batches=self.batches[name],
        )
        self._accounts.settle(worker)
        if name in self._kept:
            worker.run(import_memory, member.memory, self._kept.pop(name)["memory"])
        if self._states is not None and isinstance(worker, VirtualWorker):
            self._states.move_to(object_at(worker, member.memory), name)
        return member

    def _memory_of(self, name: str) -> WorkerMemory | None:
        """Return the memory of a worker if it was made, for visits that go by the memories of many."""
        member = self.members.already(name)
        if member is None or not isinstance(member.worker, VirtualWorker):
            return None
        memory: WorkerMemory = object_at(member.worker, member.memory)
        return memory

    def rows_of(self, names: Sequence[str]) -> RowPool | None:
        """Return the samples of workers who can be visited though nothing was made of them; or ``None``.

        Args:
            names: Who is to be visited.
        """
        if self.alone or self._optimizer_state == "travel" or not self._keep_more.isdisjoint(names):
            return None
        return self._roster.pool

    @property
    def keeps_states(self) -> bool:
        """Whether workers keep optimizer states between visits."""
        return self._states is not None

    def states_of(self, names: Sequence[str], round: int) -> KeptStates | None:
        """Return the optimizer states that such workers keep, for visits that begin; ``None`` for none.

        Args:
            names: Who is visited.
            round: Number of the round.
        """
        if self._states is not None:
            self._states.begin(round, names)
        return self._states

    def enter(self, account: Account, names: tuple[str, ...]) -> None:
        """Enter in workers' ledgers what has crossed their doors, now or when somebody asks for them.

        Args:
            account: Of each of them.
            names: Their names.
        """
        unmade = False
        for name in names:
            member = self.members.already(name)
            if member is None:
                unmade = True
            else:
                account.enter(member.worker.ledger, name)
        if unmade:
            self._accounts.keep(account, names)

    def _open_stream(self, worker: Worker, shard: Any) -> Any:
        # Only a worker that is alone shuffles with the Trainer's epochs; others count their own.
        if self.alone:
            return worker.start(open_lone_stream, shard, goes_round=self._goes_round)
        return worker.start(open_stream, shard, seed=self._seed, worker=worker.id)

    def state_dict(self, *, round: int, without_lost: bool = False) -> dict[str, Any]:
        """Return what the workers keep between visits, by name: memory, and where the stream stands.

        Args:
            round: Number of the round that comes next.
            without_lost: Whether lost workers are left out, with all that they kept.

        Raises:
            WorkerLost: One is lost, and must not be left out.
        """
        states = {**self._kept, **self._states_in_rows(round)}
        for name, member in self.members.made().items():
            with suppress(*([WorkerLost] if without_lost else [])):
                states[name] = {
                    "memory": member.worker.run(export_memory, member.memory, round),
                    "stream": member.worker.run(export_stream, member.stream),
                }
        return states

    def _states_in_rows(self, round: int) -> dict[str, Any]:
        if self._states is None:
            return {}
        found = {name: self._states.state_of(name, round) for name in self._states.workers}
        return {
            name: {"memory": {"optimizers": [state], "precision": {}, "own": {}}, "stream": {}}
            for name, state in found.items()
            if state is not None
        }

    def forget(self) -> None:
        """Empty the workers' memories, as before the first round."""
        self._kept, self._keep_more = {}, frozenset()
        if self._states is not None:
            self._states.forget()
        for member in self.members.made().values():
            member.worker.run(import_memory, member.memory, {"optimizers": [], "precision": {}})

    def load_state_dict(self, state: Mapping[str, Any], *, streams: bool) -> None:
        """Give the workers what was saved, now or when they are first asked for.

        Args:
            state: What ``state_dict`` returned.
            streams: Whether their streams go on, too, in the middle of an epoch.
        """
        made = self.members.made()
        self._kept = {name: kept for name, kept in state.items() if name not in made}
        self._take_in_rows()
        for name, member in made.items():
            if name in state:
                member.worker.run(import_memory, member.memory, state[name]["memory"])
        if streams and self.alone:
            for name, member in self.members.items():
                member.worker.run(import_stream, member.stream, state[name]["stream"])

    def _take_in_rows(self) -> None:
        """Keep what can be kept so in rows, of workers who may never be made."""
        if self._states is None or self.alone or self._roster.pool is None:
            return
        self._states.forget()
        for name in [name for name, kept in self._kept.items() if _is_state_alone(kept["memory"])]:
            self._states.put(name, self._kept.pop(name)["memory"]["optimizers"][0])
        self._keep_more = frozenset(name for name, kept in self._kept.items() if any(kept["memory"].values()))


def _is_state_alone(memory: Mapping[str, Any]) -> bool:
    """Tell whether a worker has kept the state of one optimizer, and nothing else."""
    return len(memory["optimizers"]) == 1 and not memory["precision"] and not memory.get("own")


def digest_of(samples: Mapping[str, int]) -> str:
    """Say who has how many samples, in a few words that differ where that does, whatever the order.

    Args:
        samples: Numbers of samples by name of the worker.

    Example:
        >>> digest_of({"bob": 3, "alice": 2})
        '5 samples at 2 workers (c50c3ffea678a87c)'
    """
    names = sorted(samples)
    digest = blake2b(repr([(name, int(samples[name])) for name in names]).encode(), digest_size=8).hexdigest()
    return f"{sum(samples.values())} samples at {len(names)} workers ({digest})"


def _refuse_idle(batches: Mapping[str, int]) -> None:
    empty = [name for name, count in batches.items() if count == 0]
    if empty:
        raise ValueError(
            f"workers {empty} have no full batch to train on: their shards are smaller than the batch "
            "size, and drop_last=True drops the rest. Use drop_last=False, a smaller batch_size or fewer "
            "workers."
        )
