"""What happens inside a memory when a distractor appears in mid-game.

The same games are played twice, in step: one copy of the agent sees them clean and chooses the actions, the other sees
them clean up to the onset and with the distractor from then on. Distractors never change the game, so both see the same
game at every step, and whatever differs between the two memories is the distractor's doing.

Axes: W steps of the window, B games, K units, N places, F the state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from stable_baselines3.common.distributions import CategoricalDistribution, Distribution
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor
from torch.distributions import kl_divergence

from rims_rl.cores.rim import RIM
from rims_rl.errors import ConfigError

if TYPE_CHECKING:
    from rims_rl.agents import RIMPolicy

BEFORE = 20
"""Steps before the onset that are watched, too."""
_SMALL = 1e-8


class Look(NamedTuple):
    """What one agent made of one step."""

    distribution: Distribution
    """What it would do."""
    state: Tensor
    """Its memory afterwards, (B, F)."""
    found: dict[str, Tensor]
    """Diagnostics of its core: active (B, K), null_attention (B, K), input_attention (B, K, N), ..."""


def watch_onset(
    policy: RIMPolicy, clean: VecEnv, disturbed: VecEnv, onset: int, window: int, seed: int = 0
) -> dict[str, Any]:
    """Return means over the games that reach a step, as lists over the steps from `BEFORE` before the onset on.

    * games: how many games were still going on; steps: their numbers from the onset;
    * divergence: of what the disturbed agent would do from what the clean one does, KL in nats;
    * same_action: share of games in which both have the same likeliest action;
    * state_change: distance of the memories over the length of the clean one;
    * active_clean, active_disturbed: share of games in which each unit was active, (W, K);
    * null_clean, null_disturbed: each unit's attention on the null row, (W, K);
    * untouched: share of units whose hidden state is the clean one's, to the bit;
    * unit_change: distance of each unit's hidden states over the mean length of the clean ones, (W, K);
    * attention_lift: attention of the active units on the changed places over that of one who looks evenly.

    What a core does not have is left out: units belong to a RIM, places to a slot encoder.

    Args:
        policy: the agent; actions are sampled with `seed`.
        clean: games without the distractor.
        disturbed: the same games, by seed, with it.
        onset: step at which the distractor appears; steps before `onset - BEFORE` are not reported.
        window: steps from the onset on.
        seed: of the sampled actions.

    Raises:
        ConfigError: when no game reaches the onset.
    """
    rows: list[dict[str, Any]] = []
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for step, alive, looks, pictures in _in_step(policy, clean, disturbed, onset, onset + window):
            if step >= onset - BEFORE:
                rows.append({"step": step - onset, **_compare(policy, alive, *looks, *pictures)})
    if not rows or rows[-1]["step"] < 0:
        raise ConfigError(f"no game lasted {onset} steps: choose an earlier --onset, or --no-mechanism")
    return _as_lists(rows)


def _in_step(policy: RIMPolicy, clean: VecEnv, disturbed: VecEnv, onset: int, end: int) -> Any:
    """Yield the step, which games go on (B,), what both agents make of it, and what they see."""
    pictures: tuple[Any, Any] = (clean.reset(), disturbed.reset())
    states = [policy.initial_state(clean.num_envs)] * 2
    starts = torch.ones(clean.num_envs, dtype=torch.bool, device=policy.device)
    alive = np.ones(clean.num_envs, dtype=bool)
    for step in range(end):
        seen = (pictures[0], pictures[1] if step >= onset else pictures[0])
        looks = [_look(policy, picture, state, starts) for picture, state in zip(seen, states, strict=True)]
        states = [look.state for look in looks]
        yield step, alive, looks, seen
        actions = looks[0].distribution.sample().cpu().numpy()
        one, other = clean.step(actions), disturbed.step(actions)
        pictures, starts = (one[0], other[0]), torch.as_tensor(one[2], device=policy.device)
        alive = alive & ~np.array(["episode" in info for info in one[3]])
        if not alive.any():
            return


def _look(policy: RIMPolicy, picture: Any, state: Tensor, starts: Tensor) -> Look:
    observation, _ = policy.obs_to_tensor(picture)
    distribution, _, state, found = policy.diagnose_step(observation, state, starts)
    return Look(distribution, state, found)


def _compare(
    policy: RIMPolicy, alive: np.ndarray, clean: Look, disturbed: Look, picture: Any, changed: Any
) -> dict[str, Any]:
    """Return the figures of one step, means over the games that go on."""
    games = torch.as_tensor(np.flatnonzero(alive))
    row: dict[str, Any] = {"games": len(games)}
    one, other = clean.distribution, disturbed.distribution
    row["divergence"] = _mean(_divergence(_torch(one), _torch(other)), games)
    same = (one.mode() == other.mode()).reshape(len(alive), -1).all(-1)
    row["same_action"] = _mean(same, games)
    row["state_change"] = _mean(_distance(clean.state, disturbed.state), games)
    row |= _units(policy, clean, disturbed, games)
    lift = None if picture is changed else _lift(disturbed.found, picture, changed)
    return row if lift is None else row | {"attention_lift": _mean(lift, games)}


def _units(policy: RIMPolicy, clean: Look, disturbed: Look, games: Tensor) -> dict[str, Any]:
    """Return what concerns single units; nothing for a core without any."""
    row: dict[str, Any] = {}
    for name, look in (("clean", clean), ("disturbed", disturbed)):
        for short, key in (("active", "active"), ("null", "null_attention")):
            if key in look.found:
                row[f"{short}_{name}"] = _mean(look.found[key], games)
    if isinstance(policy.core, RIM):
        mine, theirs = policy.core.unpack(clean.state).h[games], policy.core.unpack(disturbed.state).h[games]
        row["untouched"] = float((mine == theirs).all(-1).float().mean())
        lengths = mine.norm(dim=-1).mean(0).clamp_min(_SMALL)
        row["unit_change"] = ((mine - theirs).norm(dim=-1).mean(0) / lengths).tolist()
    return row


def _lift(found: Mapping[str, Tensor], picture: Any, changed: Any) -> Tensor | None:
    """Return for each game (B,) the active units' attention on changed places over an even one's; 1 without a change.

    None where attention is not on a square of places, or observations are no pictures.
    """
    attention = found.get("input_attention")  # (B, K, N)
    if attention is None or not isinstance(picture, np.ndarray) or picture.ndim != 4:
        return None
    side = round(attention.shape[-1] ** 0.5)
    if attention.shape[-1] == 1 or side**2 != attention.shape[-1]:
        return None
    difference = np.abs(picture[:, -1].astype(np.float32) - changed[:, -1]) > 0
    share = torch.nn.functional.adaptive_avg_pool2d(torch.as_tensor(difference, dtype=torch.float32)[:, None], side)
    places = share.flatten(1).to(attention)  # (B, N)
    looks = (attention * found["active"].unsqueeze(-1)).sum(1)
    looks = looks / looks.sum(-1, keepdim=True).clamp_min(_SMALL)
    even = places.mean(-1)
    return torch.where(even > 0, (looks * places).sum(-1) / even.clamp_min(_SMALL), torch.ones_like(even))


def _divergence(one: Any, other: Any) -> Tensor:
    """Return the KL divergence of the second from the first for each game (B,), finite for impossible actions too."""
    if isinstance(one, torch.distributions.Categorical):
        mine, theirs = (each.logits.double().log_softmax(-1) for each in (one, other))
        terms: Tensor = mine.exp() * (mine - theirs)  # PyTorch's own is infinite where a probability underflows
        return terms.sum(-1).clamp_min(0)
    divergence: Tensor = kl_divergence(one, other)
    return divergence if divergence.dim() == 1 else divergence.sum(-1)


def _torch(distribution: Distribution) -> Any:
    """Return PyTorch's own distribution behind SB3's."""
    if isinstance(distribution, CategoricalDistribution) or isinstance(
        distribution.distribution, torch.distributions.Distribution
    ):
        return distribution.distribution
    raise ConfigError("the mechanism is watched for single discrete or continuous actions; use --no-mechanism")


def _distance(one: Tensor, other: Tensor) -> Tensor:
    """Return for each game the distance of two states (B, F) over the length of the first."""
    distance: Tensor = (one - other).norm(dim=-1) / one.norm(dim=-1).clamp_min(_SMALL)
    return distance


def _mean(values: Tensor, games: Tensor) -> Any:
    """Return the mean over the games, a number or a list."""
    return values[games.to(values.device)].double().mean(0).tolist()


def _as_lists(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return rows as one list per name; a figure that some steps lack is None there, which JSON keeps as null."""
    names = dict.fromkeys(name for row in rows for name in row if name != "step")
    return {"steps": [row["step"] for row in rows], **{name: [row.get(name) for row in rows] for name in names}}
