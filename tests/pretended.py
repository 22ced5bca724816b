"""A device that is pretended: tensors on it are the processor's, but mixing them with the processor's is an error.

What goes wrong on a GPU alone, a tensor that was left behind or one that NumPy is to read, goes wrong here too, and
what is computed is the same. Operations are redirected by a mode, so that no kernels need to be registered.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "pretended"


class Pretended(Tensor):
    """A tensor on the pretended device; `inner` holds its numbers."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Pretended:
        found = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=torch.device(NAME, 0), requires_grad=False,
        )  # fmt: skip
        found.inner = inner
        return found  # type: ignore[no-any-return]

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"Pretended({self.inner!r})"

    def tolist(self) -> Any:
        """Copy the numbers to the processor, as a device does."""
        return self.inner.tolist()

    def data_ptr(self) -> int:
        """Return where the numbers are."""
        return self.inner.data_ptr()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.inner.__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return redirect(func, args, kwargs or {})


class Redirecting(TorchDispatchMode):
    """Sends what makes new tensors on the device to the processor too."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return redirect(func, args, kwargs or {})


COPIES = ("aten._to_copy.default", "aten.copy_.default")
MIXING = ("aten.index.Tensor", "aten.index_put_.default", "aten._index_put_impl_.default")
"""A GPU's tensor may be indexed by the processor's."""


def redirect(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Do an operation on the processor, and put the results where a device would.

    Raises:
        RuntimeError: for tensors here and there, as on a GPU; the processor's may be copied, be single numbers that
            are no arrays, and be indices.
    """
    tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
    ours = {id(x.inner): x for x in tensors if isinstance(x, Pretended)}
    asked = None if kwargs.get("device") is None else torch.device(kwargs["device"]).type
    if not ours and asked != NAME:
        return func(*args, **kwargs)
    name = str(func)
    left = [tuple(x.shape) for x in tensors if not isinstance(x, Pretended) and x.dim() > 0]
    if ours and left and name not in (*COPIES, *MIXING):
        raise RuntimeError(f"{name}: tensors on the {NAME} device and, of shapes {left}, on the processor")
    args_here, kwargs_here = tree_map(lambda x: x.inner if isinstance(x, Pretended) else x, (args, kwargs))
    if asked == NAME:
        kwargs_here["device"] = torch.device("cpu")
    result = func(*args_here, **kwargs_here)
    if name == "aten._to_copy.default" and asked not in (None, NAME):
        return result.clone() if result is args_here[0] else result
    if name == "aten.copy_.default" and not isinstance(args[0], Pretended):
        return args[0]
    found = tree_map(lambda x: _put(x, ours), result)
    return found if not ours or name in COPIES else return_and_correct_aliasing(func, args, kwargs, found)


def _put(x: Any, ours: dict[int, Pretended]) -> Any:
    """Return a result on the device: the very tensor, where an operation wrote to one."""
    if not isinstance(x, Tensor):
        return x
    return ours[id(x)] if id(x) in ours else Pretended(x)


class Backend(_DummyBackendModule):
    """What PyTorch asks a device's module."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


_registered = False


@contextmanager
def pretended_device() -> Iterator[torch.device]:
    """Inside this context there is a device of that name.

    PyTorch counts the devices at the first backward pass of a process: the first one may not come before.
    """
    global _registered
    if not _registered:
        _setup_privateuseone_for_python_backend(NAME, Backend())
        _registered = True
    torch.__future__.set_swap_module_params_on_conversion(True)  # module.to() keeps its parameters, as on a GPU
    try:
        with Redirecting():
            yield torch.device(NAME, 0)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
