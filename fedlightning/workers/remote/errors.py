"""What can be wrong with a message itself. What goes wrong at a worker is told by the workers' errors."""

from __future__ import annotations


class UnsendableError(TypeError):
    """Tell that a value cannot be sent to, or from, a worker in another process, and what to do instead."""


class MalformedMessageError(ValueError):
    """Tell that something arrived that is no message of this protocol."""


class BrokenChannelError(ConnectionError):
    """Tell that the other side has gone, or that its stream of bytes can no longer be followed."""
