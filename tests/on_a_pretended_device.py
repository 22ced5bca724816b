"""Runs agents and commands on a pretended device: python -m tests.on_a_pretended_device CASE ...

A process of its own, because a device cannot be taken back, and must be there before the first backward pass.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3 import DQN, PPO
from torch import Tensor

from rims_rl.agents import RIMPPO, RIMExtractor
from rims_rl.agents.callbacks import ActivityCallback
from rims_rl.agents.policy_files import load_policy, save_policy
from rims_rl.cli import main as command
from rims_rl.cores.loops import SWITCH
from tests.agents.small_runs import ACTIONS
from tests.agents.small_worlds import CORES, MIXED, N_ENVS, N_STEPS, SMALL_IMAGE, SMALL_RIM, VECTOR, worlds
from tests.pretended import NAME, pretended_device

ON_TORCHS_OWN = ("lstm", "gru")
"""These cores are PyTorch's own networks, which take other operations on every device."""
OBSERVATIONS = {"MlpRIMPolicy": VECTOR, "CnnRIMPolicy": SMALL_IMAGE, "MultiInputRIMPolicy": MIXED}
Weights = dict[str, Tensor]


def on_both(learn: Callable[[Any], Any]) -> Any:
    """Check that training gives the same weights on the processor and on the device, and return the agent there."""
    here = weights(learn("cpu"))
    with pretended_device() as device:
        model = learn(device)
        assert {parameter.device.type for parameter in model.policy.parameters()} == {NAME}
        there = weights(model)
    for name, tensor in here.items():
        torch.testing.assert_close(there[name], tensor, rtol=0.0, atol=1e-6)
    return model


def weights(model: Any) -> Weights:
    return {name: tensor.cpu().clone() for name, tensor in model.policy.state_dict().items()}


def trained(device: Any, policy: str, core: str, env: Any, **settings: Any) -> RIMPPO:
    """Return a small agent after two updates, some steps of its own and a look at its units."""
    arguments = {"n_steps": N_STEPS, "batch_size": N_STEPS, "n_epochs": 2, "learning_rate": 3e-3, "seed": 7}
    kwargs = {"core": core, "core_kwargs": CORES[core]}
    model = RIMPPO(policy, env, device=device, policy_kwargs=kwargs, **arguments, **settings)
    before = weights(model)
    model.learn(2 * N_STEPS * N_ENVS, callback=ActivityCallback(1))
    assert not all(torch.equal(before[name], tensor) for name, tensor in weights(model).items())
    model.predict(env.reset())
    return model


def cores() -> None:
    for core in CORES:
        if core not in ON_TORCHS_OWN:
            on_both(lambda device, core=core: trained(device, "MlpRIMPolicy", core, worlds()))


def actions() -> None:
    for space in ACTIONS.values():
        on_both(lambda device, space=space: trained(device, "MlpRIMPolicy", "rim", worlds(actions=space)))


def observations() -> None:
    for policy, space in OBSERVATIONS.items():
        on_both(lambda device, policy=policy, space=space: trained(device, policy, "rim", worlds(space=space)))


def switches() -> None:
    """What an update does otherwise: chunks, clipped values, a bound on the divergence, lives."""
    settings = {"bptt_length": N_STEPS // 2, "clip_range_vf": 0.2, "target_kl": 0.5, "ent_coef": 0.01}
    on_both(lambda device: trained(device, "MlpRIMPolicy", "rim", worlds(lives=3), **settings))


def extractor() -> None:
    """The RIM in agents of SB3."""
    kwargs = {
        "features_extractor_class": RIMExtractor,
        "features_extractor_kwargs": {"core_kwargs": SMALL_RIM, "n_stack": 3},
    }
    space = spaces.Box(-1, 1, (9,))

    def same(device: Any) -> dict[str, Any]:
        return {"device": device, "policy_kwargs": kwargs, "seed": 7, "batch_size": 8}

    def ppo(device: Any) -> Any:
        return PPO("MlpPolicy", worlds(space=space), n_steps=8, n_epochs=2, **same(device)).learn(48)

    def dqn(device: Any) -> Any:
        return DQN("MlpPolicy", worlds(1, space=space), learning_starts=16, **same(device)).learn(32)

    on_both(ppo)
    on_both(dqn)


def files() -> None:
    """A policy comes back from its files, to the processor and to the device; SB3's own file to the processor."""
    with pretended_device() as device, tempfile.TemporaryDirectory() as folder:
        stem = Path(folder) / "policy"
        model = trained(device, "MlpRIMPolicy", "rim", worlds())
        save_policy(model.policy, stem)
        model.save(Path(folder) / "model.zip")
        observations = model.env.reset()
        expected = model.predict(observations, deterministic=True)
        for agent in (
            load_policy(stem, device),
            load_policy(stem, "cpu"),
            RIMPPO.load(Path(folder) / "model.zip", device="cpu"),
        ):
            found = agent.predict(observations, deterministic=True)
            assert (found[0] == expected[0]).all()
            torch.testing.assert_close(torch.as_tensor(found[1][0]), torch.as_tensor(expected[1][0]))


def commands() -> None:
    """A run from the command line: trained, gone on with, evaluated, recorded."""
    with pretended_device(), tempfile.TemporaryDirectory() as folder:
        run, on = f"{folder}/run", ["--device", NAME]
        train = ["--config", "quick", "--n-steps", "32", "--batch-size", "64", "--wandb", "disabled"]
        core = ["--core-kwargs", "unit_size:8"]
        for line in (
            ["train", *train, *core, *on, "--total-timesteps", "512", "--output", run],
            ["train", "--resume", run, *on, "--total-timesteps", "768"],
            ["evaluate", run, *on, "--episodes", "1", "--max-episode-steps", "50"],
            ["record", run, *on, "--max-steps", "20", "--output", f"{folder}/episode.mp4"],
        ):
            assert command(line) == 0, line


def experiment() -> None:
    """A task of the paper from the command line."""
    with pretended_device(), tempfile.TemporaryDirectory() as folder:
        what = ["experiment", "copying", "--config", "small", "--models", "rim", "--rim", "unit_size:8"]
        how = ["--seeds", "1", "--updates", "2", "--eval-freq", "1", "--device", NAME]
        assert command([*what, *how, "--output", f"{folder}/copying"]) == 0


CASES = {
    case.__name__: case for case in (cores, actions, observations, switches, extractor, files, commands, experiment)
}


def main(names: list[str]) -> None:
    """Run the cases of these names."""
    os.environ[SWITCH] = "unrolled"
    torch.set_num_threads(1)
    with pretended_device():
        pass
    for name in names:
        CASES[name]()
        print("fine:", name)


if __name__ == "__main__":
    main(sys.argv[1:])
