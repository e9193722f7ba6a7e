"""What an object at a worker is called: tags to find it by, and a description for people."""

from __future__ import annotations

from fedlightning.pointers.handle import Handle
from fedlightning.pointers.messages import ObjectDescription, Tag
from fedlightning.pointers.rounds import current_round


def name_of(handle: Handle) -> ObjectDescription:
    """Ask a worker what an object is called."""
    return _tag(handle, None, None)


def add_tags(handle: Handle, tags: tuple[str, ...]) -> ObjectDescription:
    """Give an object more tags.

    Args:
        handle: The object's.
        tags: Words to find it by, beside those it has.

    Returns:
        What it is called now.

    Raises:
        RefusedByPolicy: It is a data owner's, or was computed from what is: rules go by its tags.
    """
    return _tag(handle, tuple(dict.fromkeys((*name_of(handle).tags, *tags))), None)


def describe(handle: Handle, description: str) -> None:
    """Describe an object in place of what was said of it before.

    Args:
        handle: The object's.
        description: For people and for the ledger.

    Raises:
        RefusedByPolicy: It is a data owner's, or was computed from what is.
    """
    _tag(handle, None, description)


def _tag(handle: Handle, tags: tuple[str, ...] | None, description: str | None) -> ObjectDescription:
    message = Tag(handle.use().object_id, tags, description, current_round())
    answer: ObjectDescription = handle.location.submit(message).wait()
    return answer
