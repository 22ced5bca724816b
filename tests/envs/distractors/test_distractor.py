"""Distractors as data."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rims_rl.envs.distractors import KINDS, Distractor, as_distractors, as_plain, parse_distractors
from rims_rl.errors import ConfigError, UnknownNameError


class TestTexts:
    def test_a_text_names_kinds_intensities_and_order(self):
        assert parse_distractors("balls:0.25 + noise:1:static+digits") == (
            Distractor("balls", 0.25),
            Distractor("noise", 1.0, dynamic=False),
            Distractor("digits", 0.5),
        )

    def test_a_part_may_name_its_split_and_others_take_the_given_one(self):
        assert [one.split for one in parse_distractors("balls:held-out+noise:train:0.1", "train")] == [
            "held-out",
            "train",
        ]
        assert [one.split for one in parse_distractors("balls+noise:train", "held-out")] == ["held-out", "train"]

    def test_a_folder_can_be_named(self, two_images):
        (found,) = parse_distractors(f"background:0.7:folder={two_images}")
        assert found == Distractor("background", 0.7, folder=str(two_images))

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_distractors_own_text_means_the_same(self, kind):
        one = Distractor(kind, 1 / 3, split="held-out", dynamic=kind in ("flicker", "drop"))
        assert parse_distractors(one.text) == (one,)

    @pytest.mark.parametrize("intensity", [1, np.float64(0.5), 0.1 + 0.2])
    def test_equal_distractors_have_one_text_that_can_be_read(self, intensity):
        one = Distractor("balls", intensity)
        assert one.text == Distractor("balls", float(intensity)).text
        assert parse_distractors(one.text) == (one,)


class TestPlainData:
    def test_survives_json(self):
        distractors = (Distractor("balls", 0.3, split="held-out"), Distractor("shake", 0.9, dynamic=False))
        assert as_distractors(json.loads(json.dumps(as_plain(distractors)))) == distractors

    def test_every_form_means_the_same(self):
        one = Distractor("blobs", 0.4)
        assert as_distractors("blobs:0.4") == as_distractors(one) == as_distractors([one]) == (one,)
        assert as_distractors({"kind": "blobs", "intensity": 0.4}) == (one,)
        assert as_distractors(None) == ()

    def test_a_split_replaces_the_distractors_own(self):
        assert as_distractors("balls:0.5+noise:0.2", "held-out") == parse_distractors("balls:0.5+noise:0.2", "held-out")
        assert as_distractors(Distractor("balls", split="held-out"), "train")[0].split == "train"


class TestBadInput:
    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ("ball:0.5", "unknown kind of distractor 'ball'; did you mean 'balls'?"),
            ("balls:1.5", "intensity must be from 0 to 1, got 1.5"),
            ("balls:-0.1", "intensity must be from 0 to 1, got -0.1"),
            ("balls:nan", "intensity must be from 0 to 1, got nan"),
            (
                "balls:0.5:0.2",
                "distractor 'balls:0.5:0.2' can't be read; write kind:intensity[:static][:held-out][:folder=PATH], "
                "joined by +, as in balls:0.5+noise:0.2",
            ),
            ("flicker:0.5:static", "flicker is a change over time and can't be static"),
            ("balls:folder=clips", "folder is for the kind background, got it for balls"),
            ({"kind": "balls", "strength": 1}, "unknown field of a distractor 'strength'; known names: "),
            ({"intensity": 1}, "a distractor needs a kind, got {'intensity': 1}"),
            ({"kind": "balls", "dynamic": 1}, "dynamic must be True or False, got 1"),
            ({"kind": "balls", "intensity": "much"}, "intensity must be a number from 0 to 1, got 'much'"),
            ({"kind": "balls", "intensity": True}, "intensity must be a number from 0 to 1, got True"),
            ({"kind": "balls", "split": "test"}, "unknown distractor split 'test'; known names: held-out, train"),
            ({"kind": ["balls"]}, "unknown kind of distractor \"['balls']\""),
            ({"kind": "balls", "split": ["train"]}, "unknown distractor split \"['train']\""),
            ({"kind": "balls", "intensity": -(10**5000)}, "intensity must be from 0 to 1, got <int>"),
            ({"kind": "background", "folder": 3}, "folder must be a path as text, got 3"),
            (3, "distractor must be a text like 'balls:0.5' or a Distractor, got 3"),
            ([3], "distractor must be a text like 'balls:0.5' or a Distractor, got 3"),
        ],
    )
    def test_one_line_says_what_is_wrong(self, value, message):
        with pytest.raises(ConfigError) as caught:
            as_distractors(value)
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("text", ["balls:", "balls:much", "balls:static:static", ""])
    def test_an_unreadable_text_is_refused(self, text):
        with pytest.raises(ConfigError, match=r"can't be read|unknown kind"):
            parse_distractors(text)

    def test_an_unknown_kind_like_none_gets_the_list(self):
        with pytest.raises(UnknownNameError, match=r"background, balls, .*, sprites"):
            Distractor("zzz")

    def test_an_unknown_split_is_refused_even_without_distractors(self):
        with pytest.raises(UnknownNameError, match="distractor split 'test'"):
            as_distractors(None, "test")
