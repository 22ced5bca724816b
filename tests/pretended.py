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


def redirect(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Do an operation on the processor, and put the results where a device would."""
    there = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
    ours = [x for x in there if isinstance(x, Pretended)]
    device = kwargs.get("device")
    asked = None if device is None else torch.device(device).type
    if not ours and asked != NAME:
        return func(*args, **kwargs)
    name = str(func)
    if name == "aten._local_scalar_dense.default":
        return func(args[0].inner)
    if name == "aten._pin_memory.default" or "record_stream" in name:
        raise AssertionError(name)
    left = [x for x in there if not isinstance(x, Pretended) and x.dim() > 0]
    if ours and left and name not in COPIES and "index" not in name:
        raise RuntimeError(f"{name}: tensors on {NAME} and on the processor: {[tuple(x.shape) for x in left]}")
    own = {id(x.inner): x for x in ours}
    plain = tree_map(lambda x: x.inner if isinstance(x, Pretended) else x, (args, kwargs))
    if asked == NAME:
        plain[1]["device"] = torch.device("cpu")
    result = func(*plain[0], **plain[1])
    goes_home = name == "aten._to_copy.default" and asked is not None and asked != NAME
    if goes_home:
        return result.clone() if result is plain[0][0] else result

    def put(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        return own[id(x)] if id(x) in own else Pretended(x)

    if ours and not isinstance(args[0] if args else None, Pretended) and name == "aten.copy_.default":
        return args[0]  # from the device to the processor
    found = tree_map(put, result)
    if not ours or (args and name in COPIES):
        return found
    return return_and_correct_aliasing(func, args, kwargs, found)


class Backend(_DummyBackendModule):
    """What PyTorch asks a device's module."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


_registered = False


@contextmanager
def pretended_device() -> Iterator[torch.device]:
    """Inside this context there is a device of that name."""
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
