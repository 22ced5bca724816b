"""The protocols' numbers and the settings' checks."""

from __future__ import annotations

import pytest

from rims_rl.envs import PROTOCOLS
from rims_rl.envs.protocols import AtariSettings
from rims_rl.errors import ConfigError, UnknownNameError


class TestProtocolsSayWhatTheLiteratureSays:
    def test_nature_has_no_sticky_actions_and_ends_the_return_with_a_life(self):
        rules = PROTOCOLS["nature"]
        assert (rules.sticky, rules.terminal_on_life_loss, rules.full_action_set) == (0.0, True, False)

    def test_machado_has_sticky_actions_all_actions_and_no_life_signal(self):
        rules = PROTOCOLS["machado"]
        assert (rules.sticky, rules.terminal_on_life_loss, rules.full_action_set) == (0.25, False, True)


class TestSettingsResolveTheProtocol:
    @pytest.mark.parametrize(
        ("protocol", "training", "life", "signs"),
        [("nature", True, True, True), ("machado", True, False, True), ("nature", False, False, False)],
    )
    def test_training_and_evaluation_differ_in_life_signal_and_clipping(self, protocol, training, life, signs):
        settings = AtariSettings("pong", protocol, training=training)
        assert (settings.life_loss_is_done, settings.rewards_are_signs) == (life, signs)

    @pytest.mark.parametrize("protocol", ["nature", "machado"])
    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize("value", [True, False])
    def test_an_explicit_switch_wins_over_the_protocol(self, protocol, training, value):
        settings = AtariSettings("pong", protocol, training=training, terminal_on_life_loss=value, clip_rewards=value)
        assert (settings.life_loss_is_done, settings.rewards_are_signs) == (value, value)

    def test_the_game_becomes_its_rom_name(self):
        assert AtariSettings("ALE/MsPacman-v5").game == "ms_pacman"


class TestBadSettingsAreNamed:
    @pytest.mark.parametrize("value", [0, -1, 2.0, True, "4", None])
    @pytest.mark.parametrize("name", ["frame_stack", "max_frames"])
    def test_a_count_below_one_or_no_whole_number_is_refused(self, name, value):
        with pytest.raises(ConfigError, match=f"^{name} must be a whole number of at least 1, got"):
            AtariSettings("pong", **{name: value})

    @pytest.mark.parametrize("name", ["terminal_on_life_loss", "clip_rewards"])
    def test_a_switch_that_is_no_switch_is_refused(self, name):
        with pytest.raises(ConfigError, match=f"^{name} must be True, False or None"):
            AtariSettings("pong", **{name: 1})

    def test_an_unknown_protocol_gets_the_nearest_name(self):
        with pytest.raises(UnknownNameError, match="unknown protocol 'Machadow'; did you mean 'machado'"):
            AtariSettings("pong", "Machadow")
