"""What `--profile` prints."""

from __future__ import annotations

from rich.console import Console

from rims_rl.profiling import profile_table


def printed(seconds: dict[str, float], steps: int) -> str:
    console = Console(width=80)
    with console.capture() as captured:
        console.print(profile_table(seconds, steps))
    return captured.get()


class TestTheTable:
    def test_shares_and_rates_are_those_of_the_seconds(self) -> None:
        lines = printed({"core": 3.0, "environment": 1.0}, steps=2_000).splitlines()
        cells = {words[0]: words[1:] for words in ([w for w in line.split() if w != "│"] for line in lines)}
        assert cells["environment"] == ["1.0", "25%", "500"]
        assert cells["core"] == ["3.0", "75%", "1,500"]
        assert cells["all"] == ["4.0", "100%", "2,000"]
        assert "2,000 steps, 500 steps/s" in lines[0]

    def test_phases_stand_in_the_order_of_the_loop_and_empty_ones_are_left_out(self) -> None:
        text = printed({"optimizer": 1.0, "inference": 1.0, "rest": 0.0}, steps=1)
        assert text.index("inference") < text.index("optimizer")
        assert "rest" not in text

    def test_nothing_done_is_no_error(self) -> None:
        assert "all" in printed({}, steps=0)
