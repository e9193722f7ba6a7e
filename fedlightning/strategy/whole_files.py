"""A checkpoint is written whole or not at all, also where the disk is full: the one before it stays.

What is in it lives in ``checkpoint``.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class CheckpointNotSaved(OSError):
    """There is no room for a checkpoint. Earlier ones are whole, and so is the global module.

    Args:
        path: Where it was to be saved.
        round: Number of the round that comes next.
        error: What the system said.
    """

    def __init__(self, path: str, round: int, error: OSError) -> None:
        super().__init__(error.errno, error.strerror)
        self.path = path
        self.round = round

    def __str__(self) -> str:
        return (
            f"before round {self.round}: the checkpoint {self.path} could not be saved: {self.strerror}. "
            "The global module is that of the last completed round, and earlier checkpoints are whole. Make "
            "room, and go on from the newest: trainer.fit(..., ckpt_path=...)."
        )


@contextmanager
def written_whole(path: str | os.PathLike[str], round: int) -> Iterator[None]:
    """Let a block save a checkpoint whole or not at all.

    Lightning writes into a temporary file, which it then moves. That is a matter of a moment where both are
    in the same folder, and else a copy, which may break off in the middle.

    Args:
        path: Where it is to be saved.
        round: Number of the round that comes next.

    Raises:
        CheckpointNotSaved: There was no room for it.
    """
    usual, beside = tempfile.tempdir, os.path.dirname(os.path.abspath(path))
    try:
        if "://" not in str(path):
            tempfile.tempdir = beside
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise CheckpointNotSaved(str(path), round, error) from error
    finally:
        tempfile.tempdir = usual
