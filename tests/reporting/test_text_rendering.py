"""Names as pictures: inside their room, in gray, in any alphabet."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from likely.reporting.images import image_layout
from likely.reporting.images.image_layout import INK, TextRenderer

NAMES = st.text(st.characters(codec="utf-8"), max_size=20)


@given(NAMES, st.integers(0, 200))
def test_any_name_fits_any_width(name: str, width: int) -> None:
    letters = TextRenderer.for_texts([name], 16)
    assert letters.width(letters.fitted(name, width)) <= width


def test_a_name_that_fits_is_left_as_it_is() -> None:
    letters = TextRenderer.for_texts(["boot"], 16)
    assert letters.fitted("boot", letters.width("boot")) == "boot"
    assert "…" in letters.fitted("a pair of boots", 80)


@pytest.mark.parametrize("name", ["boot", "two\nlines\tof it", "Möwe", "猫", "", "a very long name of a class"])
def test_a_picture_holds_nothing_but_ink(name: str) -> None:
    picture = np.asarray(TextRenderer.for_texts([name], 16).image(name, (120, 24)))
    assert picture.shape == (24, 120, 4)
    assert (picture[..., :3] == INK).all()
    assert (picture[..., 3] > 0).any() == bool(name)


def test_letters_keep_clear_of_the_edges() -> None:
    letters = TextRenderer.for_texts(["Ågjpqy"], 16)
    opacity = np.asarray(letters.image("Agjpqy|", (letters.width("Agjpqy|"), 24)))[..., 3]
    assert not opacity[[0, -1]].any()


def test_a_letter_that_no_face_has_is_spelled_without_its_accent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_layout, "FONTS", ("no such face.ttf",))
    accented, plain = (TextRenderer.for_texts([name], 16).image(name, (100, 24)) for name in ("Möwe", "Mowe"))
    assert accented == plain
