"""Seeds for independent random streams, as a pure function of (seed, purpose, ...).

No generator and no state lives here: whoever needs random numbers makes a generator from such a seed, so
that results depend neither on the order nor on the process in which workers run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def derive_seed(seed: int, *key: int | str) -> int:
    """Derive the seed of one random stream from the seed of the run.

    The streams in use are ``("partition",)``, ``("cohort", round)``, ``("shuffle", worker, epoch)``,
    ``("loading", worker, batch)`` and, in the layers above, those of dropout, noise and failures.

    The key is encoded unambiguously (``("ab", "c")`` differs from ``("a", "bc")``, ``1`` from ``"1"``) and
    hashed with BLAKE2b, so that the result is the same in every process, on every platform and for ever.
    torch's CPU generator uses only the lower 32 bits of a seed; where two streams must never coincide
    (privacy noise), use a generator that takes all 64, such as `numpy.random.default_rng`.

    Args:
        seed: Seed of the run; any integer.
        *key: What the stream is for, then what it belongs to: purpose, round, worker, epoch.

    Returns:
        An integer in ``[0, 2**64)``.

    Raises:
        TypeError: If the seed or a part of the key is neither an integer nor a string.

    Example:
        >>> derive_seed(0, "cohort", 3) == derive_seed(0, "cohort", 3)
        True
        >>> derive_seed(0, "cohort", 3) == derive_seed(0, "shuffle", 3)
        False
    """
    digest = hashlib.blake2b(b"".join(map(_framed, (seed, *key))), digest_size=_BYTES)
    return int.from_bytes(digest.digest(), "little")


def derive_seeds(seed: int, *key: int | str, each: Sequence[Sequence[int | str]]) -> npt.NDArray[np.uint64]:
    """Derive the seeds of many streams whose keys begin alike, as `derive_seed` does that of one.

    What they have in common is hashed once.

    Args:
        seed: Seed of the run; any integer.
        *key: What the streams have in common: purpose, round.
        each: What follows, in columns: for each further part of the key its value for every stream.

    Returns:
        A seed for every stream, shape ``(streams,)``.

    Raises:
        TypeError: As for `derive_seed`.
        ValueError: The columns have different lengths.

    Example:
        >>> seeds = derive_seeds(0, "shuffle", each=[["alice", "bob"], [3, 4]])
        >>> int(seeds[1]) == derive_seed(0, "shuffle", "bob", 4)
        True
    """
    begun = hashlib.blake2b(b"".join(map(_framed, (seed, *key))), digest_size=_BYTES)
    digests = []
    for framed in map(b"".join, zip(*map(_all_framed, each), strict=True)):
        digest = begun.copy()
        digest.update(framed)
        digests.append(digest.digest())
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64, copy=False)


def _framed(part: int | str) -> bytes:
    encoded = _encode(part)
    return len(encoded).to_bytes(8, "little") + encoded


def _all_framed(parts: Sequence[int | str]) -> list[bytes]:
    if set(map(type, parts)) == {int}:  # rounds and epochs, of which most workers have the same
        known = {part: _framed(part) for part in set(parts)}
        return [known[part] for part in parts]
    every = [_encode(part) for part in parts]
    lengths = {length: length.to_bytes(8, "little") for length in set(map(len, every))}
    return [lengths[len(encoded)] + encoded for encoded in every]


def _encode(part: int | str) -> bytes:
    if isinstance(part, str):
        return b"s" + part.encode()
    # bool is an int to Python, but a flag in a key is a mistake more often than a number.
    if isinstance(part, int) and not isinstance(part, bool):
        return b"i%d" % part
    raise TypeError(
        f"Seeds are derived from integers and strings, got {part!r} of type {type(part).__name__}."
    )


_BYTES = 8
"""Bytes of a seed."""
