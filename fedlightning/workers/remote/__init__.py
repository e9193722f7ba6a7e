"""Workers in other processes: messages that are data, a server that trusts none of them, and its client."""

from fedlightning.workers.remote.codecs.modules import accompany_modules
from fedlightning.workers.remote.codecs.records import record
from fedlightning.workers.remote.codecs.registry import register, register_family
from fedlightning.workers.remote.errors import UnsendableError
from fedlightning.workers.remote.limits import Limits
from fedlightning.workers.remote.process import HostProcess
from fedlightning.workers.remote.worker import ProcessWorker

__all__ = [
    "HostProcess",
    "Limits",
    "ProcessWorker",
    "UnsendableError",
    "accompany_modules",
    "record",
    "register",
    "register_family",
]
