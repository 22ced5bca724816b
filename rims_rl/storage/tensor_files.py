"""Tensors with a JSON manifest in one `.safetensors` file that is never half written and never holds code.

A file is written beside its final place, flushed to the disk, read back and compared, and only then put in place by one
rename: whoever opens the final name sees the old file or the new one, whole. The metadata hold a checksum over the
manifest and over every tensor's name, type, shape and bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as pack_safetensors
from torch import Tensor

from rims_rl.errors import CheckpointError, shortened
from rims_rl.storage.plain_files import only_plain, parse_json, write_whole

_FORMAT = "rims_rl/1"
_LENGTH_BYTES = 8
_MOST_HEADER_BYTES = 16 * 2**20
_MOST_BYTES = 2**36
_SMALL_BYTES, _MOST_HOLES = 2**26, 64
"""A file of more bytes than these has no more than so many for each on the disk, whatever a file system packs."""
_NOT_AS_EXPECTED = (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError)


class _Layout(NamedTuple):
    """What the header of a file says, checked against the file's size."""

    metadata: dict[str, str]
    """The text entries: format, manifest, aliases, sha256."""
    manifest: dict[str, Any]
    """The caller's JSON."""
    aliases: dict[str, str]
    """Name of each tensor that is stored under another name, and that name."""
    sha256: str
    """The checksum over all of it."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], manifest: Mapping[str, Any]) -> None:
    """Write tensors and a JSON-safe manifest to `path`, replacing what lies there in one step or not at all.

    Raises:
        CheckpointError: when the manifest or a tensor can't be stored, or the written file reads back differently.
        OSError: when the disk refuses; whatever lay at `path` is still there.
    """
    write_whole(path, _encode(path, tensors, manifest), read_back=True)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors (on the CPU) and the manifest of a file that `write_tensors` wrote.

    Raises:
        CheckpointError: when the file is missing, cut short, damaged, or not one of ours; names the path.
    """
    try:
        return _read_whole(path)
    except MemoryError:
        raise CheckpointError(f"{path} cannot be read: there is too little memory for it") from None


def _read_whole(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    layout, content = _read_file(path)
    try:
        stored = parse_safetensors(content)
    except (SafetensorError, *_NOT_AS_EXPECTED, RuntimeError, AssertionError) as error:
        raise CheckpointError(f"{path} is damaged: its tensors do not fit its header ({_one_line(error)})") from None
    if not set(layout.aliases.values()) <= stored.keys() or _digest(layout.metadata, stored) != layout.sha256:
        raise CheckpointError(f"{path} is damaged: its content does not match its checksum")
    return {**stored, **{name: stored[same] for name, same in layout.aliases.items()}}, layout.manifest


# Writing


def _encode(path: Path, tensors: Mapping[str, Tensor], manifest: Mapping[str, Any]) -> bytes:
    """Return the bytes of the whole file."""
    stored, aliases = _without_aliases(tensors)
    try:
        texts = {"format": _FORMAT, "manifest": json.dumps(dict(manifest)), "aliases": json.dumps(aliases)}
        content: bytes = pack_safetensors(stored, metadata={**texts, "sha256": _digest(texts, stored)})
    except (TypeError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{path} was not written: {_one_line(error)}") from None
    if int.from_bytes(content[:_LENGTH_BYTES], "little") > _MOST_HEADER_BYTES:
        raise CheckpointError(f"{path} was not written: its manifest is larger than {_MOST_HEADER_BYTES} bytes")
    return content


def _without_aliases(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Split into tensors to store, contiguous on the CPU, and names that show the same memory as an earlier one."""
    stored: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[tuple[Any, ...], str] = {}
    for name, tensor in tensors.items():
        memory = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() and memory in first:
            aliases[name] = first[memory]
        else:
            first[memory] = name
            stored[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return stored, aliases


def _digest(texts: Mapping[str, str], stored: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the text entries and of every tensor's name, type, shape and bytes."""
    described = [[name, str(stored[name].dtype), list(stored[name].shape)] for name in sorted(stored)]
    said = [texts["format"], texts["manifest"], texts["aliases"]]
    digest = hashlib.sha256(json.dumps([said, described]).encode())
    for name in sorted(stored):
        digest.update(stored[name].contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


# Reading


def _read_file(path: Path) -> tuple[_Layout, bytes]:
    """Return what the header says and the whole file; reads no further than what has proved plausible."""
    try:
        with open(path, "rb", opener=only_plain) as handle:
            size = _size_of(path, handle)
            prefix = handle.read(_LENGTH_BYTES)
            header = _read_header(path, handle, size, prefix)
            return _check_layout(path, header, size), prefix + header + handle.read()
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None


def _size_of(path: Path, handle: BinaryIO) -> int:
    """Return a file's size, after making sure that it is one of a file of ours, and lies on the disk."""
    state = os.fstat(handle.fileno())
    on_disk = 512 * getattr(state, "st_blocks", 0)
    is_told = on_disk > 512  # some file systems do not tell, or not yet
    if state.st_size > _MOST_BYTES or (is_told and state.st_size > max(_SMALL_BYTES, _MOST_HOLES * on_disk)):
        raise CheckpointError(
            f"{path} is not a file of rims_rl: {state.st_size:,} bytes, {on_disk:,} of them on the disk"
        )
    return state.st_size


def _read_header(path: Path, handle: BinaryIO, size: int, prefix: bytes) -> bytes:
    """Return the header's JSON, after making sure that its size can be true."""
    if size <= _LENGTH_BYTES:
        raise CheckpointError(f"{path} is truncated: {size} bytes, expected a header of more than {_LENGTH_BYTES}")
    header_size = int.from_bytes(prefix, "little")
    if header_size > _MOST_HEADER_BYTES:
        raise CheckpointError(f"{path} is not a safetensors file: expected one that rims_rl wrote")
    header = handle.read(header_size)
    if not header.startswith(b"{"):
        raise CheckpointError(f"{path} is not a safetensors file: expected one that rims_rl wrote")
    if len(header) < header_size:
        raise CheckpointError(f"{path} is truncated: {size} bytes, expected at least {_LENGTH_BYTES + header_size}")
    return header


def _check_layout(path: Path, header: bytes, size: int) -> _Layout:
    """Return what the header says, after checking it against the file's size in bytes."""
    try:
        entries = parse_json(header)
        metadata = entries.pop("__metadata__", {})
        found = metadata.get("format")
        data_size = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        expected = _LENGTH_BYTES + len(header) + int(data_size)
    except _NOT_AS_EXPECTED as error:
        raise CheckpointError(f"{path} is damaged: its header is not readable ({_one_line(error)})") from None
    if found != _FORMAT:
        raise CheckpointError(f"{path} is not a file of rims_rl: expected format {_FORMAT!r}, found {shortened(found)}")
    if size != expected:
        kind = "truncated" if size < expected else "damaged"
        raise CheckpointError(f"{path} is {kind}: {size} bytes, expected {expected}")
    return _parse_metadata(path, metadata)


def _parse_metadata(path: Path, metadata: dict[str, str]) -> _Layout:
    """Read the JSON texts in the metadata."""
    try:
        manifest, aliases = parse_json(metadata["manifest"]), parse_json(metadata["aliases"])
        if not isinstance(manifest, dict) or not isinstance(aliases, dict):
            raise ValueError("it is no mapping")
        layout = _Layout(metadata, manifest, aliases, metadata["sha256"])
        hash(tuple(layout.aliases.values()))
    except _NOT_AS_EXPECTED as error:
        raise CheckpointError(f"{path} is damaged: its manifest is not readable ({_one_line(error)})") from None
    return layout


def _one_line(error: BaseException) -> str:
    """Return an error's kind and text as one short line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"
