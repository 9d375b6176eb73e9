"""Pictures of kinds that scanners, cameras and browsers make: what they show, or one line that says why not."""

import errno
import os
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from sample_pictures import encoded, pixels, rgb
from test_images import CONFIG, png_chunk

from smolvlm_edge import ImageError, StoppedError
from smolvlm_edge.pictures import apart, images
from smolvlm_edge.pictures import pixels as rules
from smolvlm_edge.pictures.images import check_image, cut, grid_of, open_image

LEVELS = np.arange(0, 256, dtype=np.uint16).reshape(16, 16)
DEEP = LEVELS * 256 + 77
"""Greys of 16 bits whose high byte is `LEVELS`."""


def grey_of(source: object) -> np.ndarray:
    """The levels [H, W] of a picture that must be grey."""
    found = np.asarray(open_image(source))
    assert (found == found[..., :1]).all()
    return found[..., 0]


# -- more than 8 bits -----------------------------------------------------------------------------------------------


def pgm(values: np.ndarray, most: int) -> bytes:
    return b"P5 %d %d %d\n" % (*values.shape[::-1], most) + values.astype(">u2").tobytes()


def deep_tiff(
    values: np.ndarray, *entries: tuple[int, int], bits: int = 16, sample: int = 1, order: str = "<"
) -> bytes:
    """An uncompressed grey TIFF, written by hand; `entries` are further tags of 16 bits."""
    data = values.tobytes()
    tags = {256: values.shape[1], 257: values.shape[0], 258: bits, 259: 1, 262: 1, 277: 1, 278: values.shape[0]}
    tags |= dict(entries)
    place = 8 + 2 + 12 * (len(tags) + 2) + 4
    words = [(tag, 3, struct.pack(f"{order}HH", value, 0)) for tag, value in tags.items()]
    words += [(273, 4, struct.pack(f"{order}I", place)), (279, 4, struct.pack(f"{order}I", len(data)))]
    directory = b"".join(struct.pack(f"{order}HHI", tag, kind, 1) + value for tag, kind, value in sorted(words))
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    return head + struct.pack(f"{order}H", len(words)) + directory + bytes(4) + data


def packed_12_bits(values: np.ndarray) -> np.ndarray:
    pairs = values.reshape(-1, 2).astype(np.uint32)
    whole = pairs[:, 0] << 12 | pairs[:, 1]
    return np.stack([whole >> 16, whole >> 8 & 255, whole & 255], 1).astype(np.uint8)


def test_greys_of_16_bits_are_shown_by_their_high_byte() -> None:
    for source in (
        encoded(Image.fromarray(DEEP), "PNG"),
        encoded(Image.fromarray(DEEP), "TIFF"),
        encoded(Image.fromarray(DEEP), "JPEG2000", irreversible=False),
        pgm(DEEP, 65535),
        deep_tiff(DEEP.astype(">u2"), order=">"),
        Image.fromarray(DEEP),
    ):
        assert np.array_equal(grey_of(source), LEVELS)


def test_greys_of_12_bits_are_shown_by_the_range_that_the_file_states() -> None:
    twelve = LEVELS * 16 + 5
    assert np.abs(grey_of(pgm(twelve, 4095)).astype(int) - LEVELS).max() <= 1
    assert np.array_equal(grey_of(deep_tiff(twelve.astype("<u2"), (281, 4095))), LEVELS)
    whole = packed_12_bits(twelve).reshape(16, 24)
    packed = deep_tiff(whole, (256, 16), (257, 16), (278, 16), bits=12)
    assert np.array_equal(grey_of(packed), LEVELS)
    assert np.array_equal(grey_of(encoded(Image.fromarray(twelve), "PNG")), LEVELS // 16), "nothing says that it is 12"


def test_white_may_be_zero_as_in_x_rays() -> None:
    assert np.array_equal(grey_of(deep_tiff(DEEP.astype("<u2"), (262, 0))), 255 - LEVELS)


def test_a_deep_grey_may_be_declared_transparent() -> None:
    file = encoded(Image.fromarray(DEEP), "PNG", transparency=int(DEEP[0, 0]))
    assert grey_of(file)[0, 0] == 255
    assert np.array_equal(grey_of(file).ravel()[1:], LEVELS.ravel()[1:])


def test_a_deep_photo_in_colour_is_shown_by_its_high_bytes() -> None:
    deep = (pixels(20, 10).astype(np.uint16) * 256 + 99).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 20, 10, 16, 2, 0, 0, 0))
    file = b"\x89PNG\r\n\x1a\n" + head + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    assert np.array_equal(np.asarray(open_image(file)), pixels(20, 10))


def test_floats_from_0_to_1_fill_the_range_and_levels_stay() -> None:
    unit = (LEVELS / np.float32(255)).astype(np.float32)
    assert np.array_equal(grey_of(encoded(Image.fromarray(unit), "TIFF")), LEVELS)
    assert np.array_equal(grey_of(Image.fromarray(unit)), LEVELS)
    assert np.array_equal(grey_of(encoded(Image.fromarray(LEVELS.astype(np.float32)), "TIFF")), LEVELS)


@pytest.mark.parametrize(
    "values",
    [
        np.float32([[0, 4000]]),
        np.float32([[-1, 1]]),
        np.float32([[0, np.nan]]),
        np.float32([[0, np.inf]]),
        np.int32([[-1000, 3000]]),
        np.int32([[0, 70000]]),
    ],
)
def test_values_that_nothing_says_how_to_show_are_refused(values: np.ndarray) -> None:
    for source in (Image.fromarray(values), encoded(Image.fromarray(values), "TIFF")):
        with pytest.raises(ImageError, match=r"the picture has .*first"):
            open_image(source)


# -- alpha that was never meant -------------------------------------------------------------------------------------


def bmp_v5(pixels_bgra: np.ndarray) -> bytes:
    height, width = pixels_bgra.shape[:2]
    masks = struct.pack("<4I", 0x00FF0000, 0x0000FF00, 0x000000FF, 0xFF000000)
    head = struct.pack("<IiiHHIIiiII", 124, width, -height, 1, 32, 3, 0, 0, 0, 0, 0) + masks + b"BGRs" + bytes(64)
    return b"BM" + struct.pack("<IHHI", 138 + pixels_bgra.size, 0, 0, 138) + head + pixels_bgra.tobytes()


def tga_32(pixels_bgra: np.ndarray) -> bytes:
    height, width = pixels_bgra.shape[:2]
    return struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, width, height, 32, 0x20) + pixels_bgra.tobytes()


@pytest.mark.parametrize("write", [bmp_v5, tga_32])
def test_an_alpha_of_0_everywhere_is_none_in_old_formats(write: Callable[[np.ndarray], bytes]) -> None:
    colours = pixels(12, 8)
    bgra = np.dstack([colours[..., ::-1], np.zeros((8, 12), np.uint8)])
    assert np.array_equal(np.asarray(open_image(write(bgra))), colours)
    bgra[0, 0, 3] = 255
    found = np.asarray(open_image(write(bgra)))
    assert np.array_equal(found[0, 0], colours[0, 0])
    assert (found[1:] == 255).all(), "one visible pixel, and the others are transparent"


def test_a_png_that_is_transparent_everywhere_is_white() -> None:
    clear = Image.fromarray(np.dstack([pixels(12, 8), np.zeros((8, 12), np.uint8)]))
    assert (np.asarray(open_image(encoded(clear, "PNG"))) == 255).all()


# -- metadata of megabytes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["iCCP", "zTXt", "iTXt", "many", "behind"])
def test_pngs_with_large_metadata_are_read(where: str, tmp_path: Path) -> None:
    picture, large = rgb(40, 30), "x" * (2 << 20)
    options: dict = {}
    if where == "iCCP":
        options["icc_profile"] = bytes(2 << 20)
    elif where != "behind":
        options["pnginfo"] = info = PngInfo()
        for number in range(80 if where == "many" else 1):
            text = large[: 1 << 20 if where == "many" else None]
            (info.add_itxt if where == "iTXt" else info.add_text)(f"k{number}", text, zip=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(picture, "PNG", exif=exif, **options)
    if where == "behind":
        data = data[:-12] + png_chunk(b"zTXt", b"k\0\0" + zlib.compress(large.encode())) + data[-12:]
    (tmp_path / "large.png").write_bytes(data)
    for source in (data, tmp_path / "large.png"):
        assert np.array_equal(np.asarray(open_image(source)), np.rot90(np.asarray(picture), -1))


# -- HEIC -----------------------------------------------------------------------------------------------------------


def heic(picture: Image.Image, **options: object) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    buffer = BytesIO()
    pillow_heif.from_pillow(picture).save(buffer, quality=-1, chroma=444, **options)
    return buffer.getvalue()


def test_heic_with_the_extra() -> None:
    for size in ((64, 48), (51, 37)):
        picture = Image.fromarray(np.full((*size[::-1], 3), (200, 60, 90), np.uint8))
        found = np.asarray(open_image(heic(picture)))
        assert found.shape == (*size[::-1], 3)
        assert np.abs(found.astype(int) - (200, 60, 90)).max() <= 3


def test_heic_without_the_extra_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for brand in (b"heic", b"heix", b"mif1"):
        (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic" + bytes(200))
        for read in (open_image, check_image):
            with pytest.raises(ImageError, match=r"phone.heic is a picture in HEIC.*smol-edge\[heic\]"):
                read(tmp_path / "phone.heic")


# -- what is too large ----------------------------------------------------------------------------------------------


def test_a_large_jpeg_is_decoded_at_half_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MAX_PIXELS", 10_000)
    photo = Image.new("RGB", (200, 120), (10, 200, 60))
    photo.paste((250, 30, 30), (100, 0, 200, 120))
    found = np.asarray(open_image(encoded(photo, "JPEG", quality=95)))
    assert found.shape == (60, 100, 3)
    assert np.abs(found[:, 5:45].astype(int) - (10, 200, 60)).max() <= 4
    assert np.abs(found[:, 55:95].astype(int) - (250, 30, 30)).max() <= 4
    with pytest.raises(ImageError, match="more than 10,000 pixels"):
        open_image(encoded(photo, "JPEG", progressive=True))
    monkeypatch.setattr(rules, "MAX_JPEG_PIXELS", 20_000)
    with pytest.raises(ImageError, match="more than 20,000 pixels"):
        open_image(encoded(photo, "JPEG"))


def test_a_large_jpeg_2000_is_decoded_at_a_quarter_of_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MAX_JPEG2000_PIXELS", 2_000)
    found = np.asarray(open_image(encoded(Image.new("RGB", (160, 120), (10, 200, 60)), "JPEG2000")))
    assert found.shape == (30, 40, 3)
    assert np.abs(found.astype(int) - (10, 200, 60)).max() <= 2


def test_a_jpeg_2000_that_takes_long_is_decoded_in_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its decoder lets no other thread run: a deadline beside it would not be kept."""
    level = np.random.default_rng(0).integers(0, 1 << 16, (400, 300), np.uint16)
    started: list[list[str]] = []

    class Counted(subprocess.Popen[bytes]):
        def __init__(self, command: list[str], **options: object) -> None:
            started.append(command)
            super().__init__(command, **options)

    monkeypatch.setattr(apart.subprocess, "Popen", Counted)
    for picture in (Image.fromarray(level), Image.fromarray((level >> 8).astype(np.uint8)).convert("RGB")):
        data = encoded(picture, "JPEG2000")
        (tmp_path / "a.jp2").write_bytes(data)
        assert len(data) > apart.FEW_BYTES
        for source in (data, tmp_path / "a.jp2"):
            assert np.array_equal(np.asarray(open_image(source)), np.repeat((level >> 8)[..., None], 3, axis=-1))
    assert len(started) == 4
    for damaged in (data[:200_000], data[:3000] + bytes(200_000)):
        with pytest.raises(ImageError, match="the picture cannot be decoded: it is damaged"):
            open_image(damaged)
    assert open_image(encoded(Image.new("RGB", (40, 30)), "JPEG2000")).size == (40, 30)
    monkeypatch.setattr(sys, "executable", "/opt/photos/photos")  # a frozen application, which cannot be started
    assert open_image(data).size == (300, 400)
    assert len(started) == 6


@pytest.mark.parametrize(
    ("container", "options"), [("WEBP", {}), ("AVIF", {}), ("JPEG", {"progressive": True, "mode": "CMYK"})]
)
def test_pictures_that_take_more_memory_may_have_fewer_pixels(
    container: str, options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "MAX_PIXELS", 10_000)
    mode, rest = options.get("mode", "RGB"), {key: value for key, value in options.items() if key != "mode"}
    assert open_image(encoded(Image.new(mode, (70, 70)), container, **rest)).size == (70, 70)
    with pytest.raises(ImageError, match=r"more than [67],\d\d\d pixels"):
        open_image(encoded(Image.new(mode, (95, 95)), container, **rest))


@pytest.mark.parametrize("size", [(1, 300_000), (300_000, 1), (1, 80_000_000)])
def test_a_line_of_pixels_is_refused_by_their_head(size: tuple[int, int]) -> None:
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 1, 0, 0, 0, 0))
    with pytest.raises(ImageError, match="the picture has more than 262,144 pixels on a side"):
        open_image(b"\x89PNG\r\n\x1a\n" + head + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b""))


def test_a_long_strip_is_read() -> None:
    strip = open_image(encoded(Image.new("L", (3, 20_000)), "PNG"))
    assert strip.size == (3, 20_000)
    assert len(cut(strip, CONFIG, detail="low")) == 1


@pytest.mark.parametrize("size", [(0, 0), (0, 50), (50, 0)])
def test_pictures_without_pixels(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=rf"no pixels \({size[0]} x {size[1]}\)"):
        open_image(Image.new("RGB", size))


MEMORY = """
import resource, sys
from smolvlm_edge.pictures.images import open_image
from PIL import Image
open_image(Image.new("RGB", (64, 64)))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
size = open_image(sys.argv[1]).size
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / (3 * int(sys.argv[2])))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory in kilobytes")
@pytest.mark.parametrize(
    ("container", "mode", "options", "most"),
    [
        ("PNG", "RGB", {}, 3),
        ("PNG", "RGBA", {}, 3),
        ("PNG", "I;16", {}, 3),
        ("PNG", "P", {"transparency": 0}, 3),
        ("JPEG", "RGB", {}, 3),
        ("JPEG", "CMYK", {}, 3),
        ("TIFF", "RGBA", {"compression": "tiff_lzw"}, 3),
        ("JPEG2000", "RGB", {}, 3),
        ("AVIF", "RGB", {"speed": 10}, 3),
        ("WEBP", "RGB", {"method": 0}, 4.2),  # with four channels, like CMYK: three times those
        ("WEBP", "RGBA", {"method": 0, "lossless": True}, 4.2),
        ("JPEG", "CMYK", {"progressive": True}, 4.2),
    ],
)
def test_reading_takes_three_times_the_decoded_bytes(
    container: str, mode: str, options: dict, most: float, tmp_path: Path
) -> None:
    picture = Image.new(mode, (4800, 4000))
    exif = Image.Exif()
    exif[0x0112] = 6
    if container in ("PNG", "JPEG"):
        options = options | {"exif": exif}
    picture.save(tmp_path / "large", container, **options)
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "large"), str(4800 * 4000)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(result.stdout) <= most, "times the bytes of RGB"


# -- sources --------------------------------------------------------------------------------------------------------


def test_whatever_holds_bytes_is_a_source(tmp_path: Path) -> None:
    data, expected = encoded(rgb(40, 30), "PNG"), np.asarray(rgb(40, 30))
    (tmp_path / "a.png").write_bytes(data)
    buffer = BytesIO()
    rgb(40, 30).save(buffer, "PNG")  # and stands at its end
    with (tmp_path / "a.png").open("rb") as file, (tmp_path / "a.png").open("rb", buffering=0) as raw:
        for source in (bytearray(data), memoryview(data), BytesIO(data), buffer, file, raw):
            for _ in range(2):
                assert np.array_equal(np.asarray(open_image(source)), expected)


def test_open_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("text")
    with (tmp_path / "a.png").open(encoding="utf-8") as text, pytest.raises(ImageError, match="open it in binary"):
        open_image(text)
    with pytest.raises(ImageError, match="closed file"):
        open_image(text)
    with pytest.raises(ImageError, match="empty"):
        open_image(BytesIO())


def test_a_pipe_is_refused_and_nothing_hangs(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for read in (open_image, check_image):
        for path in (tmp_path / "pipe.png", "/dev/zero"):
            with pytest.raises(ImageError, match="a pipe or a device, not a file"):
                read(path)


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENOENT, errno.EIO, errno.EMFILE])
def test_what_the_system_refuses_is_the_pictures_error(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(encoded(rgb(40, 30), "PNG"))

    def refuse(path: Path, *_: object) -> None:
        raise OSError(code, os.strerror(code), str(path))  # root may read everything

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ImageError, match=r"a\.png (cannot be read|does not exist)"):
        open_image(tmp_path / "a.png")


def test_want_of_memory_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(images, "upright_rgb", out_of_memory)
    with pytest.raises(ImageError, match="needs more memory than there is"):
        open_image(encoded(rgb(40, 30), "PNG"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("\x1b[31mred.png", r"\x1b[31mred.png does not exist"),
        ("line\nbreak.png", r"line\nbreak.png does not exist"),
        (os.fsdecode(b"\xff.png"), r"\udcff.png does not exist"),
        ("\u202egnp.exe", r"\u202egnp.exe does not exist"),
    ],
)
def test_names_in_messages_obey_no_terminal(name: str, expected: str) -> None:
    with pytest.raises(ImageError) as raised:
        open_image(name)
    assert str(raised.value) == expected


# -- deadlines ------------------------------------------------------------------------------------------------------


def test_a_deadline_ends_the_waiting_for_a_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    going, release = threading.Event(), threading.Event()

    def slow(image: Image.Image, *, own: bool = False) -> Image.Image:
        going.set()
        assert release.wait(60)
        return image

    def check() -> None:
        if going.is_set():
            raise StoppedError("the answer was cancelled")

    monkeypatch.setattr(images, "upright_rgb", slow)
    try:
        with pytest.raises(StoppedError):
            open_image(encoded(rgb(40, 30), "PNG"), check)
        monkeypatch.undo()
        assert open_image(encoded(rgb(40, 30), "PNG"), lambda: None).size == (40, 30), "no other picture waits for it"
    finally:
        release.set()


# -- tokens counted first -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(200, 150), (3000, 2000), (2000, 3000), (513, 200), (64, 2000)])
@pytest.mark.parametrize("detail", ["low", "auto", "high"])
def test_the_grid_is_known_before_a_picture_is_decoded(
    size: tuple[int, int], detail: images.Detail, monkeypatch: pytest.MonkeyPatch
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.new("RGB", size, (200, 10, 10))
    for source in (picture, encoded(picture, "JPEG", exif=exif), np.asarray(picture)):
        tiles = cut(open_image(source), CONFIG, detail=detail)
        assert grid_of(source, CONFIG, detail=detail) == (tiles.rows, tiles.columns)
    monkeypatch.setattr(images, "upright_rgb", None)
    grid_of(encoded(picture, "PNG"), CONFIG)
