"""Presets: flat, checked, and all of them usable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from gymnasium import spaces

from rims_rl.agents import CnnRIMPolicy, MlpRIMPolicy
from rims_rl.building import build_env, build_model, policy_kwargs
from rims_rl.config import TrainConfig
from rims_rl.errors import ConfigError, UnknownNameError
from rims_rl.presets import describe_preset, load_preset, parse_preset, preset_names, preset_table
from rims_rl.validation import check_settings


def parameters_of_agent(preset: str) -> int:
    """Return the number of parameters of a preset's policy on Breakout's frames and four actions."""
    config = load_preset(preset).apply()
    frames = spaces.Box(0, 255, (config.frame_stack, 84, 84), np.uint8)
    policy = CnnRIMPolicy(frames, spaces.Discrete(4), lambda _: 0.0, **policy_kwargs(config))
    return sum(parameter.numel() for parameter in policy.parameters())


class TestShippedPresets:
    def test_the_promised_ones_are_there(self) -> None:
        promised = {"atari", "atari-lstm", "atari-gru", "atari-feedforward", "quick", "cartpole-novel", "minigrid"}
        assert promised <= set(preset_names())

    @pytest.mark.parametrize("name", preset_names())
    def test_each_passes_every_check(self, name: str) -> None:
        check_settings(load_preset(name).apply())

    @pytest.mark.parametrize("name", preset_names())
    def test_each_says_in_one_line_what_it_is_for(self, name: str) -> None:
        description = load_preset(name).description
        assert 20 < len(description) < 110
        assert f"{name} " in preset_table()
        assert description in preset_table()

    def test_the_atari_presets_differ_in_the_memory_alone(self) -> None:
        reference = load_preset("atari").settings
        for name in ("atari-lstm", "atari-gru", "atari-feedforward"):
            settings = load_preset(name).settings
            differing = {key for key in reference.keys() | settings.keys() if reference.get(key) != settings.get(key)}
            assert differing == {"core", "core_kwargs"}

    @pytest.mark.parametrize("name", ["atari-lstm", "atari-gru", "atari-feedforward"])
    def test_the_compared_agents_are_as_large_as_the_rim_s(self, name: str) -> None:
        assert parameters_of_agent(name) == pytest.approx(parameters_of_agent("atari"), rel=2e-3)

    def test_minigrid_s_agent_fits_its_environment(self) -> None:
        config = replace(load_preset("minigrid").apply(), n_envs=2, batch_size=256)
        env = build_env(config)
        policy, observation = build_model(config, env).policy, np.asarray(env.reset())
        actions, _ = policy.predict(observation, None, np.ones(2, dtype=bool))
        env.close()
        assert isinstance(policy, MlpRIMPolicy)
        assert actions.shape == (2,)

    def test_atari_is_the_literature_s_ppo(self) -> None:
        config = load_preset("atari").apply()
        assert (config.n_envs, config.n_steps, config.batch_size, config.n_epochs) == (8, 128, 256, 4)
        assert (config.learning_rate, config.clip_range) == ("lin_2.5e-4", "lin_0.1")
        assert config.total_timesteps == 10_000_000


class TestReading:
    def test_settings_override_the_defaults_and_the_rest_stays(self) -> None:
        config = parse_preset("mine", "n_steps: 17\ncore: gru\n").apply()
        assert (config.n_steps, config.core, config.config) == (17, "gru", "mine")
        assert config.gamma == TrainConfig().gamma

    def test_numbers_that_yaml_reads_as_texts_become_numbers(self) -> None:
        settings = parse_preset("mine", "gamma: 9e-1\ntotal_timesteps: 1e6\n").settings
        assert settings == {"gamma": 0.9, "total_timesteps": 1_000_000}

    def test_a_file_of_one_s_own_is_read_by_its_path(self, tmp_path: Path) -> None:
        (tmp_path / "mine.yaml").write_text("description: a try\nseed: 23\n")
        preset = load_preset(str(tmp_path / "mine.yaml"))
        assert (preset.settings, preset.description) == ({"seed": 23}, "a try")

    def test_the_resolved_settings_can_be_read_again(self) -> None:
        resolved = yaml.safe_load(describe_preset("quick"))
        assert resolved.pop("config") == "quick"
        again = parse_preset("again", yaml.safe_dump(resolved)).apply()
        assert again.core_kwargs == load_preset("quick").apply().core_kwargs

    def test_distractors_are_settings_like_others(self) -> None:
        settings = parse_preset("mine", "distractor: balls:0.5+noise:0.2\ndistractor_split: null\n").settings
        assert settings == {"distractor": "balls:0.5+noise:0.2", "distractor_split": None}

    def test_their_split_is_one_of_two(self) -> None:
        assert parse_preset("mine", "distractor_split: held-out").settings == {"distractor_split": "held-out"}
        with pytest.raises(ConfigError, match=r"distractor_split must be .*train.*held-out"):
            parse_preset("mine", "distractor_split: test")


@pytest.mark.faults
class TestRefusals:
    def test_an_unknown_preset_gets_the_nearest_name(self) -> None:
        with pytest.raises(UnknownNameError, match="unknown preset 'qick'; did you mean 'quick'"):
            load_preset("qick")

    def test_an_unknown_key_gets_the_nearest_name(self) -> None:
        with pytest.raises(UnknownNameError, match=r"unknown setting in preset mine 'n_step'; did you mean 'n_steps'"):
            parse_preset("mine", "n_step: 3")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("n_steps: many", "n_steps must be a whole number, got 'many'"),
            ("n_steps: 1.5", "n_steps must be a whole number"),
            ("normalize_advantage: 3", "normalize_advantage must be true or false"),
            ("protocol: atari", "protocol must be one of nature, machado"),
            ("core_kwargs: 3", "core_kwargs must be a mapping"),
            ("core_kwargs: {sizes: [1, 2]}", "core_kwargs must be a mapping of plain values"),
            ("wandb_tags: one", "wandb_tags must be a list of texts"),
            ("core: null", "core must be a text"),
            ("[1, 2]", "must be a mapping of settings"),
            ("a: [", "is not valid YAML"),
            ("seed: !!python/object/apply:os.getcwd []", "is not valid YAML"),
            ("resume: runs/x", "unknown setting"),
        ],
    )
    def test_a_value_of_the_wrong_kind_is_one_line(self, text: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message) as caught:
            parse_preset("mine", text)
        assert "\n" not in str(caught.value)

    def test_a_missing_file_is_said(self) -> None:
        with pytest.raises(ConfigError, match=r"no preset file at nowhere\.yaml"):
            load_preset("nowhere.yaml")
