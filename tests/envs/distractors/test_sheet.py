"""The picture of all kinds."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from rims_rl.envs.distractors import Distractor
from rims_rl.envs.distractors.sheet import contact_sheet, most_altered
from rims_rl.envs.emulator import typical_screens
from rims_rl.errors import ConfigError


class TestTheContactSheet:
    @pytest.mark.slow
    def test_is_a_picture_with_much_to_see(self, tmp_path):
        contact_sheet(tmp_path / "sheet.png")
        sheet = cv2.imread(str(tmp_path / "sheet.png"))
        assert sheet.shape[0] > 1_000
        assert len(np.unique(sheet.reshape(-1, 3), axis=0)) > 1_000

    def test_shows_a_frame_that_is_altered_even_where_most_are_not(self):
        frame = most_altered((Distractor("drop", 0.25),), "pong")
        assert not frame.any()
        assert typical_screens("pong")[7].any()

    def test_names_a_folder_that_is_not_there(self, tmp_path):
        with pytest.raises(ConfigError, match=r"there is no folder .*nowhere to write sheet\.png into"):
            contact_sheet(tmp_path / "nowhere" / "sheet.png")
