"""Pictures of a data card: PNG files of the size wanted, on which something is to be seen."""

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from deepred_ray.stages.pictures import MARKED, MOST_BARS, PLAIN, bars, histograms, losses

DPI = 100


def pixels(data: bytes) -> Any:
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    return imread(io.BytesIO(data), format="png")[..., :3]


def inches(picture: Any) -> tuple[float, float]:
    height, width, _ = picture.shape
    return width / DPI, height / DPI


def painted(picture: Any, colour: str) -> int:
    """Pixels of a colour."""
    return int((np.abs(picture - to_rgb(colour)).max(axis=-1) < 0.01).sum())


def test_bars_are_as_long_as_their_counts_and_the_accepted_stand_out() -> None:
    picture = pixels(bars("Attempts", {"copied": 300, "accepted": 100}, "attempts"))
    assert inches(picture) == pytest.approx((9, 1.84), abs=0.02)
    plain, marked = painted(picture, PLAIN), painted(picture, MARKED)
    assert plain / marked == pytest.approx(3, rel=0.05)
    # The largest is on top.
    rows = [np.flatnonzero((np.abs(picture - to_rgb(colour)).max(axis=-1) < 0.01).any(axis=1)) for colour in (PLAIN, MARKED)]
    assert rows[0].max() < rows[1].min()


def test_what_exceeds_two_dozen_bars_is_added_up() -> None:
    shown = {f"reason_{number}": 1000 - number for number in range(MOST_BARS - 1)}
    many = bars("Attempts", shown | {f"rare_{number}": 1 for number in range(37)}, "attempts")
    assert many == bars("Attempts", shown | {"37 others": 37}, "attempts")
    assert inches(pixels(many)) == pytest.approx((9, 1.2 + 0.32 * MOST_BARS), abs=0.02)


def test_no_counts_are_a_picture_too() -> None:
    picture = pixels(bars("Attempts", {}, "attempts"))
    assert inches(picture) == pytest.approx((9, 1.2), abs=0.02)
    assert picture.min() < 0.5 < picture.mean()  # the title, on white
    assert painted(picture, PLAIN) == 0


@pytest.mark.parametrize("panels", [1, 2, 3])
def test_a_panel_for_each_distribution(panels: int) -> None:
    values = {f"set {number}": [3, 4, 4, 5, 9 + number] for number in range(panels)}
    picture = pixels(histograms("Length", values, "words"))
    assert inches(picture) == pytest.approx((5 * panels, 3.6), abs=0.02)
    for part in np.array_split(picture, panels, axis=1):
        assert painted(part, PLAIN) > 1000
        assert painted(part, MARKED) > 50  # the median


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=40))
@settings(max_examples=8)
def test_any_numbers_can_be_drawn(numbers: list[int]) -> None:
    picture = pixels(histograms("Length", {"answers": numbers}, "words"))
    assert painted(picture, PLAIN) > 100


def test_a_picture_is_the_same_each_time() -> None:
    counts = {"accepted": 3, "copied": 4}
    assert bars("Attempts", counts, "attempts") == bars("Attempts", counts, "attempts")


def test_losses_are_two_lines_or_one() -> None:
    training = [(step, 3.0 - step / 10) for step in range(1, 11)]
    both, alone = (pixels(losses("Loss", training, validation)) for validation in ([(5, 2.6), (10, 2.2)], []))
    assert inches(both) == pytest.approx((8, 4.2), abs=0.02)
    assert painted(both, PLAIN) > 0 < painted(both, MARKED)
    assert painted(alone, PLAIN) > 0 == painted(alone, MARKED)
