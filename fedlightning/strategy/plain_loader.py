"""The loaders of plain rounds: the Trainer gets the user's own batches, and how far it came is noted.

What is done with the batches lives in ``plain``; loaders whose batches stay at a worker, in ``lone``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch.utils.data import DataLoader
from typing_extensions import override

from fedlightning.local.reader import Reader
from fedlightning.strategy.errors import round_failed
from fedlightning.strategy.lone import LoneLoader, LoneTraining, ShowsPlace


class PlainTraining(LoneTraining):
    """The loaders of one fit whose rounds are the Trainer's own steps; arguments as for `LoneTraining`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stand_ins: list[PlainLoader] = []

    @override
    def stand_in_for(self, loader: Any) -> PlainLoader:
        """Return what the Trainer iterates instead of one of the user's loaders."""
        kind = ResumablePlainLoader if self.shows_place_of(loader) else PlainLoader
        self._stand_ins.append(kind(loader, len(self._stand_ins), self))
        return self._stand_ins[-1]

    def settle(self, ahead: int) -> None:
        """Note that the Trainer is done with the batches it got.

        Args:
            ahead: How many of each loader's it has read beyond those.
        """
        for loader in self._stand_ins:
            loader.settle(ahead)

    def failed(self, error: Exception) -> Exception:
        """Say of what a loader has raised where it happened."""
        return round_failed(self._name, self._state.round, None, error)

    def state_dict(self) -> dict[str, Any]:
        """Return where the loaders stand, as the worker's stream would."""
        return {"readers": [loader.reader.state_dict() for loader in self._stand_ins]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on, when the loaders are opened next, where ``state_dict`` was called."""
        for loader, saved in zip(self._stand_ins, state["readers"], strict=False):
            loader.reader.load_state_dict(saved)

    @override
    def close(self) -> None:
        for loader in self._stand_ins:
            loader.reader.close()


class PlainLoader(LoneLoader):
    """Be taken for a loader of the user's, and yield its batches.

    Args:
        source: The user's loader.
        number: Its number among the loaders of this fit.
        training: What it belongs to.
    """

    _training: PlainTraining

    def __init__(self, source: Any, number: int, training: PlainTraining) -> None:
        super().__init__(source, number, training)
        self.reader = Reader(
            source,
            goes_round=False,
            # A loader that keeps its own place is asked for it by the Trainer.
            replays=isinstance(source, DataLoader) and not hasattr(source, "state_dict"),
        )
        self._ended = False

    @property
    def __class__(self) -> Any:
        """The class of the user's loader: callbacks that look for a DataLoader find one."""
        return type(self._source)

    @__class__.setter
    def __class__(self, kind: Any) -> None:
        raise TypeError(
            f"the stand-in for a train loader cannot become {kind!r}: exchange the loader itself."
        )

    def __eq__(self, other: object) -> bool:
        return self is other or bool(self._source == other)

    def __hash__(self) -> int:
        return hash(self._source)

    @override
    def __len__(self) -> int:
        return len(self._source)

    @override
    def __iter__(self) -> Iterator[Any]:
        # Not a generator: the loader is opened when the Trainer opens the iterator, not at its first batch.
        self._training.on_open()
        self._ended = False
        self.reader.open()
        return self._own_batches()

    def _own_batches(self) -> Iterator[Any]:
        while True:
            try:
                batch = self.reader.show()
            except StopIteration:
                self._ended = True
                return
            except Exception as error:
                raise self._training.failed(error) from error
            yield batch

    def settle(self, ahead: int) -> None:
        """Note that the Trainer is done with the batches it got, but for some that it has read ahead."""
        self.reader.take_all_but(0 if self._ended else ahead)


class ResumablePlainLoader(ShowsPlace, PlainLoader):
    """Stand in for a loader whose place is found again."""
