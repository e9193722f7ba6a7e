"""Cohorts of those that carry a tag: by what lies at them, or as the user has written down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from typing_extensions import override

from fedlightning.algorithms.sampling.base import Draw, Pool, Sampling, check_names
from fedlightning.algorithms.sampling.narrowing import NarrowedSampling
from fedlightning.algorithms.sampling.uniform import UniformSampling


@dataclass(frozen=True)
class TaggedWorkers(NarrowedSampling):
    """Draw from the workers that carry a tag; the others never take part.

    Args:
        tag: A tag, or several that a worker must all carry.
        tags: The tags of workers, by name; whoever is not mentioned carries none. ``None`` to ask the workers
            themselves, when a fit begins: those count that hold an object with these tags, such as data that
            its owner has registered with ``tags=("#cardiology",)``.
        then: How the cohort is drawn from them.

    Raises:
        TypeError: ``then`` is no way of sampling.
        ValueError: There is no tag to look for.

    Example:
        >>> from fedlightning.algorithms import Draw, Pool
        >>> pool = Pool(["alice", "bob", "carol"], samples={})
        >>> with_gpu = TaggedWorkers("gpu", {"alice": ["gpu"], "carol": ["gpu", "eu"]})
        >>> with_gpu.draw(Draw(pool, size=None, seed=0, round=0)).workers
        ('alice', 'carol')
    """

    tag: str | Sequence[str]
    tags: Mapping[str, Iterable[str]] | None = field(default=None, repr=False)
    then: Sampling = field(default_factory=UniformSampling)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self._wanted or not all(isinstance(tag, str) and tag for tag in self._wanted):
            raise ValueError(f"tag={self.tag!r} must be a tag, or several of them, such as 'gpu'.")
        if self.tags is not None:
            object.__setattr__(self, "tags", {name: frozenset(own) for name, own in self.tags.items()})

    @property
    def _wanted(self) -> tuple[str, ...]:
        return (self.tag,) if isinstance(self.tag, str) else tuple(self.tag)

    @override
    def check(self, pool: Pool, size: int | None) -> None:
        super().check(pool, size)
        check_names("tags", self.tags or (), pool)
        if not self.eligible(pool):
            raise ValueError(
                f"tag={self.tag!r}: none of the {len(pool.workers)} workers whom {self.then} could draw "
                "carries it. Use a tag that some of them carry."
            )

    @override
    def eligible(self, pool: Pool) -> Sequence[str]:
        carriers = self._carriers(pool)
        return [name for name in self.then.eligible(pool) if name in carriers]

    @override
    def mean_size(self, pool: Pool, size: int | None) -> float:
        return self._mean_size_of(Draw(pool, size, seed=0, round=0))

    @override
    def _left(self, draw: Draw) -> frozenset[str]:
        return self._carriers(draw.pool)

    def _carriers(self, pool: Pool) -> frozenset[str]:
        if self.tags is None:
            return frozenset(pool.tagged(self._wanted))
        return frozenset(name for name, own in self.tags.items() if set(self._wanted) <= set(own))
