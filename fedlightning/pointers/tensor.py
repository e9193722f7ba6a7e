"""The tensor that lives elsewhere: a wrapper without data whose every operation runs where it points."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Lock
from typing import Any, cast

import torch
from torch import Tensor
from typing_extensions import Self, override

from fedlightning.pointers import attributes, moving, naming, net
from fedlightning.pointers.backward import run_backward
from fedlightning.pointers.errors import HiddenValueError, UnsupportedOperationError
from fedlightning.pointers.execution import execute
from fedlightning.pointers.handle import Handle
from fedlightning.pointers.html import as_table
from fedlightning.pointers.location import Answer, Location, controller
from fedlightning.pointers.messages import TensorDescription
from fedlightning.pointers.objects import fetch
from fedlightning.pointers.operations import NAMES
from fedlightning.pointers.promises import UNKNOWN
from fedlightning.pointers.refusals import refused_functions
from fedlightning.pointers.swap import exchange

_REFUSED = refused_functions()
_BY_MESSAGE = {func: name for func, name in NAMES.items() if func not in attributes.HANDLERS}
_NOWHERE = torch.device("meta")
_settling = Lock()


class PointerTensor(torch.Tensor):
    """Point to a tensor at a worker and compute with it there.

    Made by ``tensor.send(worker)`` or by an operation on pointers, never directly. Shape, dtype and the like
    are known here; values are not, and an operation that would reveal one asks for `.get()`. The autograd
    graph lives at the worker.

    Example:
        >>> import torch
        >>> from fedlightning.workers import VirtualWorker
        >>> bob = VirtualWorker(id="bob")
        >>> x = bob.send(torch.tensor([1.0, 2.0], requires_grad=True))
        >>> _ = (x * x).sum().backward()  # at bob's
        >>> x.shape, x.grad.get()
        (torch.Size([2]), tensor([2., 4.]))
    """

    _handle: Handle
    _description: TensorDescription
    _promised: tuple[TensorDescription, Answer]

    @classmethod
    def point(cls, location: Location, description: TensorDescription, owned: bool = True) -> Self:
        """Make a pointer to a tensor that a worker has described.

        Args:
            location: The worker.
            description: Its answer.
            owned: Whether the tensor goes when the pointer goes.
        """
        pointer = cls._wrapper(description)
        pointer._handle = Handle(location, description.object_id, owned)
        pointer._description = description
        return pointer

    @classmethod
    def promise(cls, location: Location, object_id: int, answer: Answer) -> Self:
        """Make a pointer to a tensor that a worker will describe.

        Args:
            location: The worker.
            object_id: Identifier that the tensor gets there.
            answer: The description, when it has come.
        """
        pointer = cls._wrapper(UNKNOWN)
        pointer._handle = Handle(location, object_id)
        pointer._description = UNKNOWN
        return pointer.expect(answer)

    def expect(self, answer: Answer) -> Self:
        """Note that the tensor is about to change: what is known of it is asked for when it is needed.

        Args:
            answer: The new description, when it has come.
        """
        # Without a description, `__getattr__` is asked for it; a later answer makes an earlier one needless.
        known = self.__dict__.get("_description") or self._promised[0]
        self._promised = (known, answer)
        self.__dict__.pop("_description", None)
        return self

    def __getattr__(self, name: str) -> Any:
        # Another thread may just have settled it.
        if name == "_description" and not self.__dict__.keys().isdisjoint(("_promised", "_description")):
            return self.settle()
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def settle(self) -> TensorDescription:
        """Wait for the description that was promised, and take it over."""
        while (promised := self.__dict__.get("_promised")) is not None:
            known, answer = promised
            description = answer.wait()
            with _settling:
                # Unless another thread, which has waited for it as well, was quicker.
                if self.__dict__.get("_promised") is promised:
                    self._take_over(known, description)
                    del self._promised
        return self._description

    @classmethod
    def _wrapper(cls, description: TensorDescription) -> Self:
        # It never requires grad itself: the graph is the worker's, and the description answers for it.
        wrapper = torch.Tensor._make_wrapper_subclass(
            cls,
            # By position, because one is made per operation and keywords take longer.
            description.shape,
            description.stride,
            description.storage_offset,
            None,  # the memory format, which the strides tell
            description.dtype,
            description.layout,
            # The net answers with the real device when it is asked. Tensors on this one have no memory: torch
            # refuses to assign a pointer to a local tensor's `.data`, which would end in a crash.
            _NOWHERE,
            False,  # it is in no pinned memory
            False,  # and does not require grad
            None,  # sizes and strides are answered without asking
            True,  # the device is asked for
        )
        # There is no memory behind it: C code that asks for its address, such as dlpack, must not get one.
        torch._C._set_throw_on_mutable_data_ptr(wrapper)
        return wrapper

    def refresh(self, description: TensorDescription) -> Self:
        """Take over what an operation changed in place, such as dtype, shape, or the need of a gradient.

        Args:
            description: The worker's new description of the same tensor.
        """
        self._take_over(self._description, description)
        return self

    def _take_over(self, old: TensorDescription, description: TensorDescription) -> None:
        if description[1:7] != old[1:7]:
            exchange(self, self._wrapper(description))
        self._description = description

    @classmethod
    @override
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = _BY_MESSAGE.get(func)
        if name is not None:
            return execute(PointerTensor, name, args, kwargs or {})
        answer = attributes.HANDLERS.get(func)
        if answer is not None:
            return answer(func, args, kwargs or {})
        if func in _REFUSED:
            raise _REFUSED[func]
        return cls._beyond_the_list(func, args, kwargs or {})

    @classmethod
    def _beyond_the_list(cls, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if isinstance(func, (torch._ops.OpOverload, torch._ops.OpOverloadPacket)):
            return net.run_operator(PointerTensor, func, args, kwargs)
        name = torch.overrides.resolve_name(func) or getattr(func, "__name__", repr(func))
        raise UnsupportedOperationError(f"{name} is not offered on pointers: call .get() first")

    @classmethod
    @override
    def __torch_dispatch__(  # type: ignore[override]  # torch declares it wrongly: it is called as a class method
        cls,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return net.catch(PointerTensor, func, args, kwargs or {})

    @property
    def id(self) -> int:
        """The pointer's own identifier."""
        return self._handle.id

    @property
    def id_at_location(self) -> int:
        """The tensor's identifier at its worker."""
        return self._handle.ref.object_id

    @property
    def location(self) -> Location:
        """The worker that holds the tensor."""
        return self._handle.location

    @property
    def owner(self) -> Location:
        """The worker that holds this pointer: the controller's, named ``me``, unless it was sent."""
        return self._handle.owner

    @property
    def tags(self) -> tuple[str, ...]:
        """The words that `search` finds the tensor by; the worker is asked."""
        return naming.name_of(self._handle).tags

    @property
    def description(self) -> str:
        """What is said of the tensor; the worker is asked."""
        return naming.name_of(self._handle).description

    def tag(self, *tags: str) -> Self:
        """Give the tensor tags, beside those it has.

        Args:
            *tags: Words that `search` finds it by.

        Returns:
            This pointer.

        Raises:
            RefusedByPolicy: It is a data owner's, or was computed from what is: rules go by its tags.
        """
        naming.add_tags(self._handle, tags)
        return self

    def describe(self, description: str) -> Self:
        """Describe the tensor, for people and for the ledger.

        Args:
            description: In place of what was said before.

        Returns:
            This pointer.

        Raises:
            RefusedByPolicy: It is a data owner's, or was computed from what is.
        """
        naming.describe(self._handle, description)
        return self

    def get(self) -> Tensor:
        """Bring the tensor here, with its gradient if it has one; the pointer is spent.

        Returns:
            A leaf that requires grad if the remote tensor did; the graph stays behind.

        Raises:
            StalePointerError: It was fetched or deleted before.
            RefusedByPolicy: It may not leave.
        """
        return cast("Tensor", fetch(self._handle))

    def send(self, location: Location) -> PointerTensor:
        """Send this pointer to a worker, which then owns the tensor that it leads to.

        Args:
            location: A worker that reaches the tensor's worker directly.

        Returns:
            A pointer to the pointer. What is computed with it is computed where the tensor is; ``get`` brings
            the pointer back, and ``remote_get`` brings the tensor to the worker that holds the pointer.

        Raises:
            UnsupportedOperationError: The tensor is there, or the worker does not reach it.

        Example:
            >>> import torch
            >>> from fedlightning.workers import VirtualWorker
            >>> alice, bob = VirtualWorker(id="alice"), VirtualWorker(id="bob")
            >>> at_bob_by_way_of_alice = bob.send(torch.ones(2)).send(alice)
            >>> (at_bob_by_way_of_alice * 2).get().get()
            tensor([2., 2.])
        """
        return moving.send_pointer(self, location)

    def move(self, location: Location) -> Tensor:
        """Bring the tensor to another worker; this pointer is spent.

        Workers that reach each other hand it over directly, with the label that says whose data it is and
        with its policy; otherwise it goes by way of the controller.

        Args:
            location: The worker to bring it to. The controller's own brings it here, as `get` does.

        Returns:
            A pointer to it, this one if it is there already; the tensor itself if it was brought here.

        Raises:
            RefusedByPolicy: It may not leave its worker.
        """
        if location is self.location:
            return self
        if location is controller():
            return self.get()
        if self.location.reaches(location):
            owned, description = self._handle.owned, moving.move_object(self._handle, location)
            return self.point(location, cast("TensorDescription", description), owned)
        from fedlightning.pointers.sending import send_tensor

        return send_tensor(self.get(), location)

    def remote_get(self) -> PointerTensor:
        """Let the worker fetch what the pointer leads to that it holds: one level less for this pointer.

        Returns:
            This pointer.

        Raises:
            RemoteError: This is no pointer to a pointer.
            RefusedByPolicy: The tensor may not go there.
        """
        return moving.recall(self)

    def copy(self) -> PointerTensor:
        """Copy the tensor at its worker, so that one can be fetched and the other stays.

        Returns:
            A pointer to a leaf with the same values, which requires grad if this one does.
        """
        copy = self.detach().clone()
        return cast("PointerTensor", copy.requires_grad_() if self._description.requires_grad else copy)

    @override
    def backward(
        self,
        gradient: Tensor | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Any = None,
    ) -> PointerTensor:
        """Compute gradients at the worker, by one message.

        Args:
            gradient: A pointer there, for a tensor that is not a scalar.
            retain_graph: As for local tensors.
            create_graph: As for local tensors.
            inputs: Pointers to the leaves to accumulate into; all of them if None.

        Returns:
            This pointer.
        """
        run_backward((self,), (gradient,), retain_graph, create_graph, inputs)
        return self

    @override
    def __deepcopy__(self, memo: dict[int, Any]) -> PointerTensor:
        if not self._description.is_leaf:
            raise UnsupportedOperationError("only pointers to leaves can be deep-copied: detach() first")
        copy = self.copy()
        for name in ("_is_param", "_local_class"):
            if name in self.__dict__:
                copy.__dict__[name] = self.__dict__[name]
        memo[id(self)] = copy
        return copy

    @override
    def __reduce_ex__(self, protocol: Any) -> Any:
        raise _REFUSED[Tensor.__reduce_ex__]

    @override
    def __format__(self, spec: str) -> str:
        if spec:
            raise HiddenValueError(f"format {spec!r} would reveal the value of a tensor: call .get() first")
        return repr(self)

    @override
    def __repr__(self) -> str:  # type: ignore[override]  # torch's keyword is for printing values
        return f"(Wrapper)>[PointerTensor | {self._handle}]"

    def _repr_html_(self) -> str:
        known = self._description
        facts = {
            "at": self.location.id,
            "object": self.id_at_location,
            "shape": tuple(known.shape),
            "dtype": known.dtype,
            "requires grad": known.requires_grad,
        }
        return as_table("PointerTensor", facts | ({"gone": self._handle.gone} if self._handle.gone else {}))
