"""A policy for sharing: `NAME.safetensors` with its weights, `NAME.json` with what rebuilds it; no code in either."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rims_rl.agents.spaces import space_from_json, space_to_json
from rims_rl.agents.weights import check_weights, weights_of
from rims_rl.errors import CheckpointError, RimsError
from rims_rl.storage.tensor_files import read_tensors, write_tensors, write_text

if TYPE_CHECKING:
    from rims_rl.agents.policies import RIMPolicy

_FORMAT = "rims_rl policy/1"
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    kind.__name__: kind for kind in (nn.Tanh, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Identity)
}
_MOST_JSON_BYTES = 16 * 2**20


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
    policy = _build(entries, str(description), core, encoder)
    check_weights(policy, weights, str(weights_file))
    policy.load_state_dict(weights)
    policy.set_training_mode(False)
    return policy.to(device)


def _build(entries: Mapping[str, Any], where: str, core: type[Any] | None, encoder: type[Any] | None) -> RIMPolicy:
    """Make the policy with fresh weights."""
    from rims_rl.agents.policies import POLICIES

    try:
        settings = dict(entries["settings"])
        name, activation = settings.pop("policy"), settings.pop("activation_fn")
        observation_space = space_from_json(entries["observation_space"])
        action_space = space_from_json(entries["action_space"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{where} is damaged: it lacks {error}") from None
    for what, chosen, known in (("policy", name, POLICIES), ("activation_fn", activation, _ACTIVATIONS)):
        if chosen not in known:
            raise CheckpointError(f"{where} has the {what} {chosen!r}; known are {', '.join(known)}")
    settings["core"] = _own_class("core", settings.get("core"), core, where)
    settings["encoder"] = _own_class("encoder", settings.get("encoder"), encoder, where)
    try:
        with torch.random.fork_rng(devices=[]):
            settings |= {"activation_fn": _ACTIVATIONS[activation], "ortho_init": False}  # the weights are replaced
            return POLICIES[name](observation_space, action_space, lambda _: 0.0, **settings)
    except (RimsError, TypeError, ValueError) as error:
        raise CheckpointError(f"{where} cannot be built: {' '.join(str(error).split())}") from error


def _own_class(what: str, name: Any, passed: type[Any] | None, where: str) -> Any:
    """Return the class that the caller passed, else the name, which must be one of rims_rl's own."""
    if passed is not None:
        return passed
    if isinstance(name, str) and ":" in name:
        raise CheckpointError(f"{where} uses the {what} class {name}, not one of rims_rl: import it and pass {what}=")
    return name


def _read_entries(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MOST_JSON_BYTES:
            raise CheckpointError(f"{path} is not a policy of rims_rl: it is larger than {_MOST_JSON_BYTES} bytes")
        entries = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(entries, dict) or entries.get("format") != _FORMAT:
        raise CheckpointError(f"{path} is not a policy of rims_rl: expected format {_FORMAT!r}")
    return entries


def _beside(stem: Path, ending: str) -> Path:
    return stem.with_name(stem.name + ending)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
