"""Policies and ledgers between a worker process and its starter: a policy as its class and settings."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from fedlightning.workers.ledger import Entry, Ledger, Traffic
from fedlightning.workers.remote.codecs.packing import Packer, Unpacker
from fedlightning.workers.remote.codecs.records import record
from fedlightning.workers.remote.codecs.registry import register
from fedlightning.workers.remote.errors import UnsendableError
from fedlightning.workers.rules import Rules


class PolicySettings:
    """Stand for a policy on its way to a new worker.

    Args:
        policy: `Rules`, or a dataclass whose fields are data, functions, or other policies.
    """

    def __init__(self, policy: Any) -> None:
        self.policy = policy


def _pack_policy(value: PolicySettings, packer: Packer) -> list[Any]:
    policy = value.policy
    kind = type(policy)
    if kind is Rules:
        args, settings = policy.rules, {"otherwise": policy.otherwise}
    elif is_dataclass(policy):
        args, settings = (
            (),
            {field.name: getattr(policy, field.name) for field in fields(policy) if field.init},
        )
    else:
        raise UnsendableError(
            f"policy={policy!r} cannot be sent to a new process: make {kind.__qualname__} a dataclass whose "
            f"fields are data, or functions that can be imported there"
        )
    return [
        packer.surroundings.names.name(kind),
        packer.pack(_wrapped(args)),
        packer.pack(_wrapped(settings)),
    ]


def _wrapped(value: Any) -> Any:
    if any(hasattr(value, method) for method in ("decide", "judge", "release")):
        return PolicySettings(value)
    if isinstance(value, (list, tuple)):
        return type(value)(map(_wrapped, value))
    if isinstance(value, dict):
        return {key: _wrapped(item) for key, item in value.items()}
    return value


def _unpack_policy(items: list[Any], unpacker: Unpacker) -> Any:
    path, args, settings = items
    return unpacker.surroundings.names.find(path)(*unpacker.unpack(args), **unpacker.unpack(settings))


def _pack_ledger(value: Ledger, packer: Packer) -> list[Any]:
    return [packer.pack(part) for part in value.columns()]


def _unpack_ledger(items: list[Any], unpacker: Unpacker) -> Ledger:
    columns, kinds = map(unpacker.unpack, items)
    return Ledger.from_columns(columns, kinds)


record(Entry)
record(Traffic)
register(Ledger, "ledger", _pack_ledger, _unpack_ledger)
register(PolicySettings, "policy", _pack_policy, _unpack_policy)
