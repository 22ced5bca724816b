"""A policy for sharing: `NAME.safetensors` with its weights, `NAME.json` with what rebuilds it; no code in either."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rims_rl.agents.rebuilding import rebuilt, rebuilt_by_own_classes
from rims_rl.agents.spaces import space_from_json, space_to_json
from rims_rl.agents.weights import weights_of
from rims_rl.errors import CheckpointError, said, shortened
from rims_rl.storage.plain_files import only_plain, read_json, write_text
from rims_rl.storage.tensor_files import read_tensors, write_tensors

if TYPE_CHECKING:
    from rims_rl.agents.policies import RIMPolicy

_FORMAT = "rims_rl policy/1"
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    kind.__name__: kind for kind in (nn.Tanh, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Identity)
}
_MOST_JSON_BYTES = 16 * 2**20
_SETTINGS: dict[str, Any] = {
    "policy": str, "core": str, "core_kwargs": dict, "encoder": str, "encoder_kwargs": dict, "encoder_precision": str,
    "net_arch": list | dict, "activation_fn": str, "normalize_images": bool,
}  # fmt: skip
_NEEDED = ("policy", "activation_fn", "core", "encoder")


def save_policy(policy: RIMPolicy, stem: Path, about: Mapping[str, Any] | None = None) -> None:
    """Write `<stem>.safetensors` and `<stem>.json`.

    Args:
        policy: the policy.
        stem: the path of both files without their endings.
        about: JSON-safe facts to keep beside it: where it was trained, for how long, with what score.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    weights = _beside(stem, ".safetensors")
    write_tensors(weights, weights_of(policy), {"kind": "policy"})
    entries = {
        "format": _FORMAT,
        "weights_sha256": _sha256(weights),
        "settings": policy.constructor_settings(),
        "observation_space": space_to_json(policy.observation_space),
        "action_space": space_to_json(policy.action_space),
        "about": dict(about or {}),
    }
    write_text(_beside(stem, ".json"), json.dumps(entries, indent=2) + "\n")


def load_policy(
    stem: Path, device: torch.device | str = "cpu", core: type[Any] | None = None, encoder: type[Any] | None = None
) -> RIMPolicy:
    """Rebuild a policy that `save_policy` wrote; runs nothing that the files say.

    Args:
        stem: the path of both files without their endings (an ending of theirs is understood, too).
        device: where the policy shall run.
        core: the core's class, needed when it is one of the user's own.
        encoder: the encoder's class, likewise.

    Raises:
        CheckpointError: when a file is missing, damaged or foreign, or needs a class that was not passed.
    """
    stem = stem.with_suffix("") if stem.suffix in (".safetensors", ".json") else stem
    weights_file, description = _beside(stem, ".safetensors"), _beside(stem, ".json")
    entries = _read_entries(description)
    weights, _ = read_tensors(weights_file)
    if _sha256(weights_file) != entries.get("weights_sha256"):
        raise CheckpointError(
            f"{weights_file} is not the one that {description.name} describes: their checksums differ"
        )
    make = _maker(entries, str(description), core, encoder)
    own_classes = core is not None or encoder is not None  # which need not know how to be without numbers
    policy = (rebuilt_by_own_classes if own_classes else rebuilt)(make, weights, str(weights_file))
    policy.set_training_mode(False)
    return policy.to(device)


def policy_facts(stem: Path) -> dict[str, Any]:
    """Return what the description of a stored policy says of it under `about`; raises as `load_policy` does."""
    about = _read_entries(_beside(stem, ".json")).get("about")
    return dict(about) if isinstance(about, dict) else {}


def _maker(
    entries: Mapping[str, Any], where: str, core: type[Any] | None, encoder: type[Any] | None
) -> partial[RIMPolicy]:
    """Return what builds the policy with fresh weights."""
    from rims_rl.agents.policies import POLICIES

    settings = _checked_settings(entries.get("settings"), where)
    name, activation = settings.pop("policy"), settings.pop("activation_fn")
    for what, chosen, known in (("policy", name, POLICIES), ("activation_fn", activation, _ACTIVATIONS)):
        if chosen not in known:
            raise CheckpointError(f"{where} has the {what} {shortened(chosen)}; known are {', '.join(known)}")
    settings["core"] = _own_class("core", settings.get("core"), core, where)
    settings["encoder"] = _own_class("encoder", settings.get("encoder"), encoder, where)
    settings |= {"activation_fn": _ACTIVATIONS[activation], "ortho_init": False}  # the weights are replaced
    try:
        observations, actions = (space_from_json(entries.get(key)) for key in ("observation_space", "action_space"))
    except CheckpointError as error:
        raise CheckpointError(f"{where} is damaged: {error}") from None
    return partial(POLICIES[name], observations, actions, _no_schedule, **settings)


def _checked_settings(settings: Any, where: str) -> dict[str, Any]:
    """Return a copy of the settings, each of the kind that it is written as."""
    if not isinstance(settings, dict):
        raise CheckpointError(f"{where} is damaged: it lacks its settings")
    known = ", ".join(_SETTINGS)
    for name in settings.keys() - _SETTINGS.keys():
        raise CheckpointError(f"{where} cannot be built: it has a setting {shortened(name)}; known are {known}")
    for name in _NEEDED:
        if name not in settings:
            raise CheckpointError(f"{where} is damaged: it lacks {name!r}")
    for name, value in settings.items():
        if not isinstance(value, _SETTINGS[name]):
            raise CheckpointError(f"{where} is damaged: its {name} is {shortened(value)}")
    return dict(settings)


def _no_schedule(progress_remaining: float) -> float:
    return 0.0


def _own_class(what: str, name: Any, passed: type[Any] | None, where: str) -> Any:
    """Return the class that the caller passed, else the name, which must be one of rims_rl's own."""
    if passed is not None:
        return passed
    if ":" in name:
        raise CheckpointError(
            f"{where} uses the {what} class {shortened(name)[1:-1]}, not one of rims_rl: import it and pass {what}="
        )
    return name


def _read_entries(path: Path) -> dict[str, Any]:
    try:
        entries = read_json(path, _MOST_JSON_BYTES)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {said(error)}") from None
    if not isinstance(entries, dict) or entries.get("format") != _FORMAT:
        raise CheckpointError(f"{path} is not a policy of rims_rl: expected format {_FORMAT!r}")
    return entries


def _beside(stem: Path, ending: str) -> Path:
    return stem.with_name(stem.name + ending)


def _sha256(path: Path) -> str:
    with open(path, "rb", opener=only_plain) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
