"""Text as images: in gray, within its width, in any script."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from likely.reporting.images import image_layout
from likely.reporting.images.image_layout import INK, TextRenderer

NAMES = st.text(st.characters(codec="utf-8"), max_size=20)


@given(NAMES, st.integers(0, 200))
def test_text_fits_any_width(name: str, width: int) -> None:
    letters = TextRenderer.for_texts([name], 16)
    assert letters.width(letters.fitted(name, width)) <= width


def test_fitting_text_is_unchanged() -> None:
    letters = TextRenderer.for_texts(["boot"], 16)
    assert letters.fitted("boot", letters.width("boot")) == "boot"
    assert "…" in letters.fitted("a pair of boots", 80)


@pytest.mark.parametrize("name", ["boot", "two\nlines\tof it", "Möwe", "猫", "", "a very long name of a class"])
def test_image_of_text_has_one_color(name: str) -> None:
    picture = np.asarray(TextRenderer.for_texts([name], 16).image(name, (120, 24)))
    assert picture.shape == (24, 120, 4)
    assert (picture[..., :3] == INK).all()
    assert (picture[..., 3] > 0).any() == bool(name)


def test_letters_do_not_touch_the_edges() -> None:
    letters = TextRenderer.for_texts(["Ågjpqy"], 16)
    opacity = np.asarray(letters.image("Agjpqy|", (letters.width("Agjpqy|"), 24)))[..., 3]
    assert not opacity[[0, -1]].any()


def test_missing_letters_lose_their_accents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_layout, "FONTS", ("no such face.ttf",))
    accented, plain = (TextRenderer.for_texts([name], 16).image(name, (100, 24)) for name in ("Möwe", "Mowe"))
    assert accented == plain
