"""Variants as data: what a game offers, texts, and what is refused."""

from __future__ import annotations

import pytest

from rims_rl.envs.variants import Variant, list_variants, parse_variant
from rims_rl.errors import ConfigError, UnknownNameError


class TestWhatAGameOffers:
    @pytest.mark.parametrize(
        ("game", "modes", "difficulties"),
        [("pong", 2, 4), ("ALE/Breakout-v5", 12, 2), ("Freeway", 8, 2), ("SpaceInvaders", 16, 2), ("seaquest", 1, 2)],
    )
    def test_modes_and_difficulties_are_ales(self, game, modes, difficulties):
        offer = list_variants(game)
        assert (len(offer.modes), len(offer.difficulties)) == (modes, difficulties)

    def test_a_game_without_variations_still_has_its_switches(self):
        offer = list_variants("boxing")
        assert offer.variations == {}
        assert offer.difficulties == (0, 1, 2, 3)

    @pytest.mark.parametrize("game", ["pong", "breakout", "freeway", "space_invaders", "seaquest"])
    def test_every_variation_says_what_it_does_and_stands_alone(self, game):
        for name, variation in list_variants(game).variations.items():
            assert variation.effect.endswith(".")
            assert (variation.change is None) != (variation.paint is None)
            assert parse_variant(game, name).text.split(":")[0] == name


class TestTexts:
    @pytest.mark.parametrize(
        ("game", "text", "canonical"),
        [
            ("pong", "", ""),
            ("pong", "lazy_enemy", "lazy_enemy"),
            ("pong", "up_drift + mode:1+lazy_enemy", "mode:1+up_drift:3+lazy_enemy"),
            ("breakout", "difficulty:1+gravity:5+mode:44", "mode:44+difficulty:1+gravity:5"),
        ],
    )
    def test_a_text_is_read_and_written_back_in_one_form(self, game, text, canonical):
        variant = parse_variant(game, text)
        assert variant.text == canonical
        assert parse_variant(game, canonical) == variant

    def test_the_parts_are_a_variants_fields(self):
        assert parse_variant("ALE/Pong-v5", "difficulty:2+hidden_enemy+left_drift:4") == Variant(
            "pong", difficulty=2, levels=(("hidden_enemy", 0), ("left_drift", 4))
        )


class TestRefusals:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("lazy_enemi", "unknown variant of pong 'lazy_enemi'; did you mean 'lazy_enemy'"),
            ("qqq", "known names: difficulty:0, difficulty:1, .*hidden_enemy, lazy_enemy, .*mode:1"),
            ("mode:7", "pong has no mode 7; available: 0, 1"),
            ("difficulty:9", "pong has no difficulty 9; available: 0, 1, 2, 3"),
            ("mode:one", "'mode:one' must have a whole number after its colon"),
            ("mode", "'mode' must have a whole number after its colon"),
            ("mode:1+mode:0", "gives mode twice"),
            ("up_drift:6", "up_drift takes a level from 1 to 5, got 6"),
            ("up_drift:0", "up_drift takes a level from 1 to 5, got 0"),
            ("lazy_enemy:2", "lazy_enemy takes no level, got 2"),
            ("up_drift+down_drift", "'up_drift' and 'down_drift' can't be combined: both set the vertical drift"),
            ("lazy_enemy+lazy_enemy", "both set the enemy's moves"),
            ("lazy_enemy+", "unknown variant of pong ''"),
        ],
    )
    def test_each_is_one_line_that_says_what_would_be_right(self, text, message):
        with pytest.raises(ConfigError, match=message) as caught:
            parse_variant("pong", text)
        assert "\n" not in str(caught.value)

    def test_one_shield_can_not_vanish_twice(self):
        with pytest.raises(ConfigError, match="both set the left shield"):
            parse_variant("space_invaders", "disable_shields+disable_shield_left")

    def test_a_variation_of_another_game_is_unknown_here(self):
        with pytest.raises(UnknownNameError, match="variant of breakout 'lazy_enemy'"):
            parse_variant("breakout", "lazy_enemy")

    def test_what_is_no_text_is_refused(self):
        with pytest.raises(ConfigError, match="variant must be a text such as 'mode:1\\+lazy_enemy', got 3"):
            parse_variant("pong", 3)
