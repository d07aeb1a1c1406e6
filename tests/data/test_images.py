"""Decoding and preprocessing of every kind of image, rejection of damaged files, and writing of images."""

from __future__ import annotations

import os
import struct
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from pydantic import ValidationError

from likely.base import to_eight_bit, to_unit
from likely.data.decoding import ORIENTATION, decode, read_header
from likely.data.preprocessing import ImageFormat, ImageOptions, read_image, to_pil, write_image
from likely.data.sources.folder import find_images
from likely.exceptions import ImageError

POLICIES = ("pad", "crop", "stretch")


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def rgb(height: int, width: int, resize: str = "pad") -> ImageFormat:
    return ImageFormat(channels=3, height=height, width=width, resize=resize)


def gray(height: int, width: int, resize: str = "pad") -> ImageFormat:
    return ImageFormat(channels=1, height=height, width=width, resize=resize)


# ---- scaling


def test_pixel_scaling_round_trips_every_8_bit_value() -> None:
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_eight_bit(to_unit(values)), values)
    assert to_unit(values).dtype == torch.float32
    assert to_eight_bit(torch.tensor([-0.5, 1.5])).tolist() == [0, 255]


# ---- what comes out


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.sampled_from([(), (1,), (3,), (4,)]),
    resize=st.sampled_from(POLICIES),
    wanted=st.sampled_from([(1, 8, 8), (3, 8, 8), (3, 5, 11), (1, 16, 3)]),
)
@settings(max_examples=60, deadline=None)
def test_read_image_returns_the_format(height, width, channels, resize, wanted) -> None:
    format = ImageFormat(channels=wanted[0], height=wanted[1], width=wanted[2], resize=resize)
    pixels = read_image(noise(0, height, width, *channels), format)
    assert pixels.shape == wanted
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize("resize", POLICIES)
@given(value=st.integers(0, 255), height=st.integers(1, 70), width=st.integers(1, 70))
@settings(max_examples=20, deadline=None)
def test_constant_image_keeps_its_color(resize, value, height, width) -> None:
    assert (read_image(np.full((height, width), value, np.uint8), gray(9, 7, resize)) == value).all()


@pytest.mark.parametrize("resize", POLICIES)
def test_image_of_the_right_size_is_unchanged(tmp_path, resize) -> None:
    colors, grays = noise(0, 6, 5, 3), noise(1, 6, 5)
    write_image(tmp_path / "colors.png", Image.fromarray(colors))
    for source in (colors, Image.fromarray(colors), encoded(Image.fromarray(colors)), tmp_path / "colors.png"):
        assert np.array_equal(read_image(source, rgb(6, 5, resize)), colors.transpose(2, 0, 1))
    for source in (grays, grays[:, :, None], Image.fromarray(grays), encoded(Image.fromarray(grays))):
        assert np.array_equal(read_image(source, gray(6, 5, resize)), grays[None])
        assert np.array_equal(read_image(source, rgb(6, 5, resize)), np.stack([grays] * 3))


def test_pad_keeps_the_whole_image_and_fills_with_the_median_border_color() -> None:
    image = np.full((10, 20, 3), (10, 200, 30), np.uint8)
    image[3:7, 5:15] = 255
    image[0, 0] = 0
    pixels = read_image(image, rgb(20, 20))
    assert (pixels[:, :4].reshape(3, -1).T == (10, 200, 30)).all()
    assert (pixels[:, -4:].reshape(3, -1).T == (10, 200, 30)).all()
    assert (pixels[:, 9:11, 9:11] == 255).all()


def test_crop_keeps_the_center() -> None:
    image = np.zeros((10, 30), np.uint8)
    image[:, 10:20] = 255
    assert (read_image(image, gray(10, 10, "crop")) == 255).all()


def test_center_crop_ratio_enlarges_the_center() -> None:
    image = np.zeros((40, 60), np.uint8)
    image[10:30, 20:40] = 255
    twice = ImageFormat(channels=1, height=20, width=20, resize="crop", center_crop_ratio=2)
    assert (read_image(image, twice)[0] == 255).all()
    assert not (read_image(image, gray(20, 20, "crop"))[0] == 255).all()
    assert (read_image(image[:20, :20], twice) == image[:20, :20]).all()  # it has the size already


@pytest.mark.parametrize("resize", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("resample", ["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"])
def test_images_are_resized_with_the_filter_of_the_format(resize: str, resample: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (12, 12), dtype=np.uint8)
    format = ImageFormat.model_validate(
        {"channels": 1, "height": 24, "width": 24, "resize": resize, "resample": resample}
    )
    expected = Image.fromarray(image).resize((24, 24), Image.Resampling[resample.upper()])
    assert (read_image(image, format)[0] == np.asarray(expected)).all()
    assert format.options.resample == resample


@pytest.mark.parametrize("resize", ["pad", "stretch"])
def test_center_crop_ratio_needs_crop(resize: str) -> None:
    with pytest.raises(ValidationError, match="'crop'"):
        ImageOptions(resize=resize, center_crop_ratio=1.5)


def test_stretch_ignores_the_aspect_ratio() -> None:
    image = np.repeat(np.array([[0, 255]], np.uint8), 4, axis=0).repeat(8, axis=1)
    pixels = read_image(image, gray(4, 4, "stretch"))[0]
    assert (pixels[:, 0] < 30).all()
    assert (pixels[:, -1] > 225).all()


# ---- modes


@pytest.mark.parametrize("mode", ["1", "L", "P", "PA", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "RGBX"])
def test_every_mode_is_read_as_pillow_converts_it(mode) -> None:
    image = Image.fromarray(noise(2, 8, 8, 3)).convert("P").convert(mode)
    shown = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(read_image(image, rgb(8, 8)), shown)
    brightness = np.asarray(image.convert("RGB").convert("L")).astype(int)
    assert np.abs(read_image(image, gray(8, 8)).astype(int) - brightness).max() <= 1


def test_cmyk_jpeg_is_read() -> None:
    image = Image.new("RGB", (16, 16), (200, 40, 90))
    pixels = read_image(encoded(image.convert("CMYK"), "JPEG", quality=95), rgb(16, 16))
    assert np.abs(pixels[:, 8, 8].astype(int) - (200, 40, 90)).max() < 6


def test_transparency_is_composited_over_white() -> None:
    half = np.zeros((4, 4, 4), np.uint8)
    half[:, 2:] = (0, 0, 255, 255)
    half[:, :2] = (255, 0, 0, 0)
    paletted = Image.fromarray(half[:, :, :3]).convert("P", palette=Image.Palette.ADAPTIVE)
    red = paletted.getpixel((0, 0))
    for image in (
        encoded(Image.fromarray(half)),
        encoded(Image.fromarray(half[:, :, :3]), transparency=(255, 0, 0)),
        encoded(paletted, transparency=red),
        encoded(paletted, transparency=bytes(0 if i == red else 255 for i in range(4))),
        encoded(Image.fromarray(half), "WEBP", lossless=True),
    ):
        pixels = read_image(image, rgb(4, 4))
        assert (pixels[:, :, :2] == 255).all()
        assert (pixels[:, :, 2:] == np.array([0, 0, 255])[:, None, None]).all()
    gray_alpha = np.stack([np.full((4, 4), 100, np.uint8), np.full((4, 4), 128, np.uint8)], axis=2)
    assert np.abs(read_image(Image.fromarray(gray_alpha, "LA"), gray(4, 4)).astype(int) - 177).max() <= 1


def test_sixteen_bits_are_divided_by_257() -> None:
    deep = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    expected = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    for source in (
        deep,
        Image.fromarray(deep),
        encoded(Image.fromarray(deep)),
        encoded(Image.fromarray(deep), "TIFF"),
        Image.fromarray(deep.astype(">u2")),
        Image.fromarray(deep.astype(np.int32)),
    ):
        assert np.array_equal(read_image(source, gray(16, 16)), expected)


def test_more_than_sixteen_bits_are_rejected() -> None:
    for array in (np.full((4, 4), 70_000, np.int32), np.zeros((4, 4), np.float32)):
        with pytest.raises(ImageError, match="deep"):
            read_image(encoded(Image.fromarray(array), "TIFF"), gray(4, 4), name="deep")


def test_first_frame_of_an_animation_is_read() -> None:
    frames = [Image.new("RGB", (5, 5), color) for color in ("red", "blue")]
    for kind in ("GIF", "PNG", "WEBP"):
        film = encoded(
            frames[0], kind, save_all=True, append_images=frames[1:], **({} if kind == "GIF" else {"lossless": True})
        )
        assert (read_image(film, rgb(5, 5))[0] == 255).all()


# ---- orientation and draft


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(orientation, kind) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    lying = encoded(
        Image.fromarray(noise(3, 6, 9, 3)), kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {})
    )
    with Image.open(BytesIO(lying)) as image:
        upright = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    height, width = upright.shape[:2]
    assert (height > width) == (orientation >= 5)
    assert np.array_equal(read_image(lying, rgb(height, width)), upright.transpose(2, 0, 1))


def test_large_jpeg_is_upright_and_decoded_at_reduced_scale() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    image = np.zeros((400, 800, 3), np.uint8)
    image[:, :400] = (255, 0, 0)  # the left half, which is the upper one when upright
    jpeg = encoded(Image.fromarray(image), "JPEG", exif=exif, quality=95)
    pixels = read_image(jpeg, rgb(32, 16))
    assert (pixels[0, :14] > 240).all()
    assert (pixels[0, -14:] < 15).all()
    small = decode(jpeg, "RGB", (16, 32), "a JPEG")
    assert (small.width, small.height) == (50, 100)


def test_reduced_scale_decoding_changes_pixels_little() -> None:
    y, x = np.mgrid[:600, :600] / 600
    smooth = np.stack([255 * x, 255 * y, 127 + 100 * np.sin(6 * x * y)], axis=2).astype(np.uint8)
    jpeg = encoded(Image.fromarray(smooth), "JPEG", quality=95)
    with Image.open(BytesIO(jpeg)) as whole:
        whole.load()
        assert np.abs(read_image(jpeg, rgb(32, 32)).astype(int) - read_image(whole, rgb(32, 32))).max() <= 4


def test_broken_exif_is_ignored() -> None:
    jpeg = encoded(Image.fromarray(noise(4, 8, 8, 3)), "JPEG", exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff broken")
    assert read_image(jpeg, rgb(8, 8)).shape == (3, 8, 8)


# ---- HEIC

HEIC = (
    Path(__file__).parent / "rotated.heic"
)  # 96 x 64 stored, rotated to 64 x 96: the upper half is red, the lower blue


@pytest.mark.parametrize("from_bytes", [False, True])
def test_heic_is_decoded_and_turned_upright_once(from_bytes) -> None:
    pytest.importorskip("pi_heif")
    source = HEIC.read_bytes() if from_bytes else HEIC
    header = read_header(source, "a HEIC")
    assert (header.height, header.width) == (96, 64)
    pixels = read_image(source, rgb(96, 64)).astype(int)
    assert np.abs(pixels[:, :40] - np.array([200, 30, 30])[:, None, None]).max() < 10
    assert np.abs(pixels[:, -40:] - np.array([30, 30, 200])[:, None, None]).max() < 10


def test_heic_without_its_plugin_is_an_error_that_names_it(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pi_heif", None)  # as if it were not installed
    with pytest.raises(ImageError, match="pi-heif") as refusal:
        read_image(HEIC, rgb(8, 8))
    assert str(refusal.value).startswith(str(HEIC))


def test_damaged_heic_is_rejected() -> None:
    pytest.importorskip("pi_heif")
    content = HEIC.read_bytes()
    for damaged in (content[:40], content[:300], content[:-50]):
        with pytest.raises(ImageError):
            read_image(damaged, rgb(8, 8))


@pytest.mark.parametrize("name", ["a.heic", "b.HEIF"])
def test_heic_files_are_found(tmp_path, name) -> None:
    (tmp_path / name).touch()
    assert find_images([tmp_path]) == [tmp_path / name]


# ---- arrays


def test_bool_and_unit_floats_are_scaled() -> None:
    assert np.array_equal(read_image(np.eye(3, dtype=bool), gray(3, 3))[0], 255 * np.eye(3, dtype=np.uint8))
    steps = np.arange(256).reshape(16, 16)
    for kind in (np.float32, np.float64):
        assert np.array_equal(read_image((steps / 255).astype(kind), gray(16, 16))[0], steps)


@pytest.mark.parametrize(
    "array",
    [
        np.full((4, 4), 255.0),
        np.full((4, 4), -0.1),
        np.full((4, 4), np.nan),
        np.zeros((4, 4), np.int64),
        np.zeros((3, 8, 8), np.uint8),
        np.zeros((2, 2, 2, 2), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((0, 4), np.uint8),
    ],
)
def test_arrays_that_are_not_images_are_rejected(array) -> None:
    with pytest.raises(ImageError, match=r"^frame 7: "):
        read_image(array, gray(4, 4), name="frame 7")


# ---- damaged files


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


WHOLE = Image.fromarray(noise(5, 64, 64, 3))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello, I am a text",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        png_header(50_000, 50_000),
        encoded(WHOLE)[:-2000],
        encoded(WHOLE)[:30],
        encoded(WHOLE, "JPEG")[:-600],
        encoded(WHOLE, "GIF")[:400],
        encoded(WHOLE, "WEBP")[:-100],
        encoded(WHOLE, "TIFF")[:500],
        encoded(WHOLE, "BMP")[:500],
    ],
)
def test_damaged_image_is_rejected_by_name(tmp_path, content) -> None:
    path = tmp_path / "odd.png"
    path.write_bytes(content)
    for source, name in ((path, str(path)), (content, "image bytes")):
        with pytest.raises(ImageError) as refusal:
            read_image(source, rgb(8, 8))
        assert str(refusal.value).startswith(name)
        assert "\n" not in str(refusal.value)


@given(
    at=st.integers(0, 400),
    what=st.binary(min_size=1, max_size=8),
    kind=st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "TIFF"]),
)
@settings(max_examples=80, deadline=None)
def test_damage_anywhere_gives_an_image_or_an_image_error(at, what, kind) -> None:
    whole = encoded(Image.fromarray(noise(6, 9, 9, 3)), kind)
    at %= len(whole)
    damaged = whole[:at] + what + whole[at + len(what) :]
    with suppress(ImageError):
        assert read_image(damaged, rgb(8, 8), name="it").shape == (3, 8, 8)


def test_folders_pipes_and_missing_files_are_rejected(tmp_path) -> None:
    write_image(tmp_path / "kitten.png", noise(7, 3, 4, 4))
    os.mkfifo(tmp_path / "pipe")
    for name, expected in (
        ("", "is a folder"),
        ("pipe", "not a regular file"),
        ("kiten.png", "'kitten.png'"),
        ("Kitten.PNG", "'kitten.png'"),
        ("zebra", "zebra"),
        ("no/such/folder.png", "folder.png"),
        ("kitten.png/inside.png", "inside.png"),
    ):
        with pytest.raises(ImageError, match=expected):
            read_image(tmp_path / name, rgb(4, 4))


def test_pillow_warnings_are_suppressed_and_filters_restored(monkeypatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)  # Pillow then warns of 64 pixels, as it does of 100 million
    png = encoded(Image.fromarray(noise(8, 8, 8, 3)))
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(lambda _: read_image(png, rgb(8, 8)), range(200)))) == 200
    assert warnings.filters == before


def test_open_pillow_image_stays_open_and_unchanged(tmp_path) -> None:
    write_image(tmp_path / "a.jpg", noise(8, 3, 64, 64))
    with Image.open(tmp_path / "a.jpg") as image:
        read_image(image, gray(8, 8))
        assert (image.mode, image.size) == ("RGB", (64, 64))
        assert image.getpixel((0, 0)) is not None


# ---- options


def test_size_formats_are_parsed() -> None:
    assert ImageOptions(size=32).size == ImageOptions(size="32").size == (32, 32)
    assert ImageOptions(size="32x48").size == ImageOptions(size=[32, 48]).size == (32, 48)
    assert ImageOptions().size is None
    assert ImageOptions.model_validate_json(ImageOptions(size="32x48").model_dump_json()).size == (32, 48)


@pytest.mark.parametrize("size", ["3o", "", 0, -1, True, 3.5, (1, 2, 3), "32x", "9999999", ("32", 32)])
def test_invalid_sizes_are_rejected_by_name(size) -> None:
    with pytest.raises(ValidationError):
        ImageOptions(size=size)


def test_image_format_round_trips_through_json() -> None:
    format = rgb(32, 48, "crop")
    assert ImageFormat.model_validate_json(format.model_dump_json()) == format
    assert format.shape == (3, 32, 48)


# ---- finding and writing


def test_find_images_expands_folders_and_returns_other_paths(tmp_path) -> None:
    for name in ("b/2.PNG", "b/1.jpg", "a/c/3.webp", "a/notes.txt", ".hidden/4.png", "b/.5.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    inside = [tmp_path / "a/c/3.webp", tmp_path / "b/1.jpg", tmp_path / "b/2.PNG"]
    assert find_images([tmp_path]) == inside
    others = [Path("missing.png"), tmp_path / "a/notes.txt"]
    assert find_images([*map(str, others), tmp_path / "b"]) == [*others, *inside[1:]]
    assert find_images([]) == []


@pytest.mark.parametrize("shape", [(1, 7, 5), (3, 7, 5), (3, 1, 1), (1, 1, 1)])
def test_written_image_is_read_unchanged(tmp_path, shape) -> None:
    pixels = noise(10, *shape)
    write_image(tmp_path / "a.png", pixels)
    format = ImageFormat(channels=shape[0], height=shape[1], width=shape[2])
    assert np.array_equal(read_image(tmp_path / "a.png", format), pixels)
    assert np.array_equal(read_image(to_pil(pixels), format), pixels)


def test_unwritable_image_is_rejected(tmp_path) -> None:
    for name, expected in (
        ("a.pnk", "'.png'"),
        ("a", ".png"),
        ("no/a.png", "no/a.png"),
    ):
        with pytest.raises(ImageError, match=expected):
            write_image(tmp_path / name, noise(11, 3, 4, 4))


@pytest.mark.parametrize("orientation", [1, 6])
def test_open_jpeg_is_read_like_its_file_and_not_decoded(tmp_path, orientation) -> None:
    smooth = Image.fromarray(noise(8, 30, 40, 3)).resize((640, 480), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    smooth.save(tmp_path / "a.jpg", quality=90, exif=exif)
    expected = read_image(tmp_path / "a.jpg", rgb(32, 32))
    with (
        Image.open(tmp_path / "a.jpg") as from_file,
        Image.open(BytesIO((tmp_path / "a.jpg").read_bytes())) as in_memory,
    ):
        with ThreadPoolExecutor(4) as pool:
            several = list(pool.map(lambda image: read_image(image, rgb(32, 32)), [from_file, in_memory] * 4))
        assert all(np.array_equal(pixels, expected) for pixels in several)
        assert from_file.size == (640, 480)
        assert np.array_equal(np.asarray(from_file), np.asarray(Image.open(tmp_path / "a.jpg")))
