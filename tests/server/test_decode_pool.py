"""Decoder processes: an image that breaks or exhausts its process does not affect the service."""

import asyncio
import multiprocessing
import zlib
from io import BytesIO
from multiprocessing.connection import Connection

import numpy as np
import pytest
from PIL import Image

from likely.data.preprocessing import ImageFormat, read_image
from likely.exceptions import ImageError
from likely.server.http.decode_pool import DecodeJob, DecoderPool
from likely.server.http.settings import Settings

FORMAT = ImageFormat(channels=3, height=8, width=8)


@pytest.fixture(scope="module")
def decoders():
    made = DecoderPool(Settings(decode_workers=2, max_pixels=1_000_000, decode_timeout=20))
    yield made
    made.close()


def encoded(pixels, kind="PNG"):
    file = BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def decode(decoders, content, name="x.png"):
    return asyncio.run(decoders.decode(DecodeJob(content, name, FORMAT)))


@pytest.mark.parametrize(("kind", "media_type"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp")])
def test_decoded_pixels_equal_those_of_read_image(decoders, kind, media_type):
    content = encoded(np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8), kind)
    found = decode(decoders, content)
    assert np.array_equal(found.pixels, read_image(content, FORMAT))
    assert (found.media_type, found.width, found.height) == (media_type, 20, 12)


@pytest.mark.parametrize("content", [b"", b"no image", encoded(np.zeros((9, 9, 3), np.uint8))[:45]])
def test_unreadable_image_raises_image_error_with_its_name(decoders, content):
    with pytest.raises(ImageError, match=r"^bad\.png"):
        decode(decoders, content, "bad.png")


def test_decompression_bomb_is_refused(decoders):
    packed = zlib.compress(bytes(1 + 30_000 * 3))
    header = (30_000).to_bytes(4) + (30_000).to_bytes(4) + bytes([8, 2, 0, 0, 0])

    def chunk(kind, content):
        return len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)

    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    with pytest.raises(ImageError, match=r"bomb\.png"):
        decode(decoders, bomb, "bomb.png")


def test_killed_processes_are_replaced(decoders):
    content = encoded(np.zeros((4, 4, 3), np.uint8))
    for process in multiprocessing.active_children():
        process.kill()
        process.join()
    for _ in range(3):
        assert decode(decoders, content).width == 4


def test_image_that_crashes_its_process_raises_image_error(decoders, monkeypatch):
    content = encoded(np.zeros((4, 4, 3), np.uint8))
    with monkeypatch.context() as patch:
        patch.setattr(Connection, "recv", lambda self: (_ for _ in ()).throw(EOFError))  # as from a dead process
        with pytest.raises(ImageError) as raised:
            decode(decoders, content)
    assert isinstance(raised.value.__cause__, EOFError)
    assert decode(decoders, content).width == 4


def test_decoding_stops_after_the_timeout(decoders, monkeypatch):
    content = encoded(np.zeros((4, 4, 3), np.uint8))
    monkeypatch.setattr(decoders, "seconds", 0.0)
    with pytest.raises(ImageError) as raised:
        decode(decoders, content)
    assert isinstance(raised.value.__cause__, TimeoutError)
    monkeypatch.setattr(decoders, "seconds", 20)
    assert decode(decoders, content).height == 4


def test_image_beyond_the_memory_limit_raises_image_error():
    small = DecoderPool(Settings(decode_memory_mb=64, max_pixels=10**9))
    content = encoded(np.zeros((9000, 9000), np.uint8))
    try:
        with pytest.raises(ImageError, match=r"x\.png"):
            decode(small, content)
        assert decode(small, encoded(np.zeros((4, 4, 3), np.uint8))).width == 4
    finally:
        small.close()
