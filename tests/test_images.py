"""A picture becomes the tiles that transformers makes of it, and what is no picture gets one clear error."""

import json
import logging
import random
import re
import struct
import warnings
import zlib
from dataclasses import replace
from functools import cache
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, get_args

import numpy as np
import PIL
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image, ImageFile, features
from released_files import RELEASED
from sample_pictures import (
    ORIENTATION,
    PICTURES,
    SETTINGS,
    animated_gif,
    encoded,
    grey,
    palette,
    pixels,
    resize_fingerprint,
    rgb,
    rgba,
    rotated,
)

from smolvlm_edge import ImageError
from smolvlm_edge.bundle.config import ImageConfig
from smolvlm_edge.pictures import pixels as reading
from smolvlm_edge.pictures.images import Detail, Tiles, cut, longest_edge_size, open_image, tile_multiple_size

GOLDENS = json.loads((Path(__file__).parent / "goldens" / "images.json").read_text(encoding="utf-8"))
CONFIG = ImageConfig.from_folder(RELEASED)
SMALL = replace(CONFIG, longest_edge=64, tile_size=16)
SAME_RESIZE = GOLDENS["resize_fingerprint"] == resize_fingerprint()
SAME_CODECS = GOLDENS["codecs"] == {
    "pillow": PIL.__version__,
    **{name: features.version(name) for name in ("libjpeg_turbo", "webp")},
}


def tile_facts(tiles: Tiles) -> dict[str, Any]:
    digest = sha256()
    for values in tiles.pixel_values():
        digest.update(values.astype("<f4").tobytes())
    return {"tiles": len(tiles), "rows": tiles.rows, "columns": tiles.columns, "sha256": digest.hexdigest()}


@pytest.mark.parametrize("name", GOLDENS["cases"])
def test_tiles_are_those_of_transformers(name: str) -> None:
    expected = GOLDENS["cases"][name]
    picture = PICTURES[name]()
    image = open_image(picture)

    found = {setting: tile_facts(cut(image, replace(CONFIG, **SETTINGS[setting]))) for setting in expected}

    if not SAME_RESIZE or (name in GOLDENS["lossy"] and not SAME_CODECS):
        # transformers rounds differently there, too (tests/test_images_live.py); the grid still holds
        found, expected = ({key: facts | {"sha256": ""} for key, facts in each.items()} for each in (found, expected))
    assert found == expected


def test_goldens_cover_every_picture_and_setting() -> None:
    assert GOLDENS["cases"].keys() == PICTURES.keys()
    assert {setting for cases in GOLDENS["cases"].values() for setting in cases} == SETTINGS.keys()


def test_split_and_longest_edge_replace_the_checkpoints_rules() -> None:
    image = open_image(PICTURES["small_200x150"]())
    unsplit, smaller = tile_facts(cut(image, replace(CONFIG, split=False))), replace(CONFIG, longest_edge=1024)

    assert tile_facts(cut(image, CONFIG, detail="low")) == unsplit
    assert unsplit["tiles"] == 1
    assert tile_facts(cut(image, CONFIG, longest_edge=1024)) == tile_facts(cut(image, smaller))
    assert len(cut(image, CONFIG, longest_edge=1024)) == 5
    assert tile_facts(cut(image, replace(CONFIG, split=False))) == unsplit, "no detail overrules the checkpoint"


@pytest.mark.parametrize(
    ("width", "height", "rows", "columns"),
    [
        (200, 150, 0, 0),
        (512, 512, 0, 0),
        (513, 200, 1, 2),
        (640, 427, 2, 2),
        (427, 640, 2, 2),
        (1500, 1000, 2, 3),
        (2048, 1366, 3, 4),
        (3000, 2000, 3, 4),
    ],
)
def test_auto_enlarges_no_picture_but_to_whole_tiles(width: int, height: int, rows: int, columns: int) -> None:
    """What is as large as the rules would make it, or larger, is cut as by them."""
    image = Image.fromarray(pixels(width, height))
    found = cut(image, CONFIG, detail="auto")
    assert (found.rows, found.columns) == (rows, columns)
    if width >= 2048:
        assert tile_facts(found) == tile_facts(cut(image, CONFIG))
    else:
        assert tile_facts(found) == tile_facts(cut(image, CONFIG, longest_edge=512 * max(rows, columns, 1)))
    assert len(cut(image, CONFIG, detail="auto", longest_edge=100)) == 1


def same(first: Image.Image, second: Image.Image) -> bool:
    return first.mode == second.mode == "RGB" and np.array_equal(np.asarray(first), np.asarray(second))


def test_every_kind_of_source_gives_the_same_picture(tmp_path: Path) -> None:
    array = pixels(60, 40)
    file = tmp_path / "Bär 1.png"
    Image.fromarray(array).save(file)

    found = [open_image(source) for source in (str(file), file, file.read_bytes(), Image.open(file), array)]

    assert all(same(image, Image.fromarray(array)) for image in found)


def test_grey_arrays_become_three_equal_channels() -> None:
    level = pixels(60, 40, 1)
    expected = Image.fromarray(np.repeat(level, 3, axis=2))

    assert same(open_image(level), expected)
    assert same(open_image(level[..., 0]), expected)


def test_four_channel_arrays_are_laid_over_white_like_files() -> None:
    assert same(open_image(np.asarray(rgba())), open_image(encoded(rgba(), "PNG")))


def test_array_views_are_read_as_seen() -> None:
    array = pixels(60, 40)
    assert same(open_image(array[::-1, ::2]), Image.fromarray(np.ascontiguousarray(array[::-1, ::2])))


def test_transparency_shows_white() -> None:
    array = np.zeros((1, 3, 4), np.uint8)
    array[0, :, 3] = 0, 51, 255  # black at 0 %, 20 % and 100 %

    assert np.asarray(open_image(array))[0].tolist() == [[255] * 3, [204] * 3, [0] * 3]


def test_a_picture_in_memory_is_left_as_it_was() -> None:
    image = Image.open(BytesIO(rotated(6, "PNG")))
    before = image.copy()

    open_image(image)

    assert image.size == before.size == (150, 90)
    assert np.array_equal(np.asarray(image), np.asarray(before))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint16, np.bool_])
def test_arrays_of_other_types_are_refused(dtype: type) -> None:
    with pytest.raises(ImageError, match=rf"{np.dtype(dtype)}.*uint8"):
        open_image(np.ones((8, 8, 3), dtype))


@pytest.mark.parametrize(
    "shape", [(), (8,), (8, 8, 2), (8, 8, 5), (3, 8, 8), (1, 8, 8, 3), (0, 8, 3), (8, 0), (8, 8, 0)]
)
def test_arrays_of_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match=r"\[H, W, 3\]") as raised:
        open_image(np.zeros(shape, np.uint8))
    assert str(shape) in str(raised.value)


UPRIGHT = {  # what a viewer does with a picture of each EXIF orientation
    1: lambda array: array,
    2: np.fliplr,
    3: lambda array: np.rot90(array, 2),
    4: np.flipud,
    5: lambda array: array.transpose(1, 0, 2),
    6: lambda array: np.rot90(array, -1),
    7: lambda array: np.rot90(array, 2).transpose(1, 0, 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(orientation: int) -> None:
    found = np.asarray(open_image(rotated(orientation, "PNG")))
    assert np.array_equal(found, UPRIGHT[orientation](pixels(150, 90)))


def test_exif_orientation_of_a_photo_swaps_the_grid() -> None:
    lying, standing = (cut(open_image(rotated(value, "JPEG")), CONFIG) for value in (1, 6))
    assert (lying.rows, lying.columns) == (standing.columns, standing.rows) == (3, 4)


def test_animation_gives_its_first_picture_and_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "waving.gif"
    file.write_bytes(animated_gif())

    with caplog.at_level(logging.WARNING, logger="smolvlm_edge"):
        image = open_image(file)

    assert same(image, palette().convert("RGB"))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "waving.gif" in caplog.text
    assert "3 pictures" in caplog.text


def test_first_page_of_a_document_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="smolvlm_edge"):
        image = open_image(PICTURES["two_page_tiff"]())

    assert same(image, rgb(120, 90))
    assert "2 pictures" in caplog.text


@pytest.mark.parametrize("name", ["mpo", "jpeg", "webp", "tiff", "palette_transparent_index"])
def test_single_pictures_log_nothing(name: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="smolvlm_edge"):
        image = open_image(PICTURES[name]())

    assert image.mode == "RGB"
    assert not caplog.records


# --- sizes -------------------------------------------------------------------------------------------------------

unhurried = settings(deadline=None)  # a slow machine is no failure
sides = st.integers(1, 6000)
tile_sizes = st.sampled_from([16, 364, 384, 512])


@unhurried
@given(sides, sides, st.integers(1, 4096))
def test_longest_edge_size(width: int, height: int, longest_edge: int) -> None:
    new_width, new_height = longest_edge_size(width, height, longest_edge)

    longer, shorter = max(new_width, new_height), min(new_width, new_height)
    # rounding the other side of a square up to an even number may make it the longer one
    assert longer == longest_edge or (width == height and longer == longest_edge + 1)
    assert shorter == 1 or longest_edge == 1 or (new_height if width >= height else new_width) % 2 == 0
    exact = longest_edge * min(width, height) / max(width, height)
    assert exact - 1 <= (new_height if width >= height else new_width) <= max(exact + 1, 1)


@unhurried
@given(sides, sides, st.integers(4097, 10_000))
def test_no_resized_picture_is_longer_than_4096(width: int, height: int, longest_edge: int) -> None:
    size = longest_edge_size(width, height, longest_edge)
    assert max(size) == 4096
    assert min(size) >= 1


@unhurried
@given(st.integers(1, 4096), st.integers(1, 4096), tile_sizes)
def test_tile_multiple_size(width: int, height: int, tile: int) -> None:
    new_width, new_height = tile_multiple_size(width, height, tile)

    assert new_width % tile == new_height % tile == 0
    assert new_width >= width
    assert new_height >= height
    assert max(new_width, new_height) < max(width, height) + tile


@unhurried
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 6), st.integers(8, 48))
def test_less_detail_never_takes_more_tiles(width: int, height: int, most: int, tile: int) -> None:
    config = replace(CONFIG, longest_edge=most * tile, tile_size=tile)
    low, auto, high = (len(cut(Image.new("RGB", (width, height)), config, detail=each)) for each in get_args(Detail))
    assert 1 == low <= auto <= high


@unhurried
@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(1, 200),
    st.integers(8, 48),
    st.booleans(),
)
def test_tiles_cover_a_grid(width: int, height: int, longest_edge: int, tile: int, split: bool) -> None:
    config = replace(CONFIG, longest_edge=longest_edge, tile_size=tile, split=split)

    tiles = cut(Image.new("RGB", (width, height), (0, 128, 255)), config)

    assert (tiles.rows == 0) == (tiles.columns == 0)
    assert len(tiles) == len(tiles.squares) == (tiles.rows * tiles.columns + 1 if tiles.rows else 1)
    assert tiles.rows * tiles.columns != 1
    assert split or len(tiles) == 1
    assert {(square.shape, square.dtype) for square in tiles.squares} == {((tile, tile, 3), np.dtype(np.uint8))}
    values = list(tiles.pixel_values())
    assert {(value.shape, value.dtype) for value in values} == {((1, 3, tile, tile), np.dtype(np.float32))}
    for value in values:  # one colour stays one colour: 0, 128 and 255 on a scale from -1 to 1
        assert np.allclose(value[0].transpose(1, 2, 0), [-1, 128 / 127.5 - 1, 1], atol=1e-6)


def test_tiles_run_row_by_row_and_end_with_the_whole() -> None:
    array = np.zeros((32, 48, 3), np.uint8)
    for row in range(2):
        for column in range(3):
            array[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16] = 40 * (row * 3 + column)

    tiles = cut(Image.fromarray(array), replace(SMALL, longest_edge=48))

    assert (tiles.rows, tiles.columns, len(tiles)) == (2, 3, 7)
    assert [int(square.mean()) for square in tiles.squares[:-1]] == [0, 40, 80, 120, 160, 200]
    assert tiles.squares[-1][0, 0, 0] < 20 < 180 < tiles.squares[-1][-1, -1, 0]


# --- what is no picture ------------------------------------------------------------------------------------------


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds a single row's worth of nothing."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(bytes(1000))) + png_chunk(b"IEND", b"")


def bmp_header(width: int, height: int) -> bytes:
    header = struct.pack("<IHHIIiiHHIIiiII", 1000, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + header + bytes(946)


def one_line(error: ImageError, name: str) -> str:
    """The message, which must name the picture once, in one line."""
    message = str(error)
    assert message.count(name) == 1
    assert "\n" not in message
    return message


DAMAGED = {
    "notes.jpg": (b"Dear diary, this is no photo.\n" * 20, "no picture of a known format"),
    "photo.jpg": (encoded(rgb(200, 150), "JPEG")[:4000], "cannot be decoded"),
    "chart.png": (encoded(rgb(200, 150), "PNG")[:4000], "cannot be decoded"),
    "header_only.png": (encoded(rgb(200, 150), "PNG")[:16], "cannot be decoded"),
    # its directory is last; Pillow 11 takes it for a TIFF all the same
    "page.tiff": (encoded(rgb(200, 150), "TIFF", compression="tiff_lzw")[:4000], "no picture|cannot be decoded"),
    "short.gif": (encoded(palette(), "GIF")[:2000], "cannot be decoded"),
    "short.webp": (encoded(rgb(200, 150), "WEBP")[:2000], "cannot be decoded"),
    "short.bmp": (encoded(rgb(200, 150), "BMP")[:4000], "cannot be decoded"),
    "nothing.png": (b"", "is empty"),
    "nul.png": (bytes(500), "no picture of a known format"),
    "bomb.png": (png_header(50_000, 50_000), "pixels"),
    "bomb.bmp": (bmp_header(50_000, 50_000), "pixels"),
    "large.png": (png_header(10_000, 10_000), "pixels"),  # Pillow itself only warns of this one
}


@pytest.mark.parametrize("name", DAMAGED)
def test_unreadable_files_are_named(name: str, tmp_path: Path) -> None:
    data, problem = DAMAGED[name]
    file = tmp_path / name
    file.write_bytes(data)

    with pytest.raises(ImageError) as raised:
        open_image(str(file))
    assert re.search(problem, one_line(raised.value, str(file)))


@pytest.mark.parametrize("name", DAMAGED)
def test_unreadable_bytes_are_called_the_picture(name: str) -> None:
    data, problem = DAMAGED[name]

    with pytest.raises(ImageError) as raised:
        open_image(data)
    assert re.search(problem, one_line(raised.value, "the picture"))


@pytest.mark.parametrize("size", [(50_000, 50_000), (10_000, 10_000), (90_000_000, 1)])
def test_huge_pictures_are_refused_before_memory_is_taken(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: loaded.append(image.size))

    for data in (png_header(*size), bmp_header(*size)):
        with pytest.raises(ImageError, match=r"more than 89,478,485 pixels"):
            open_image(data)
    assert not loaded


def test_size_limit_holds_for_pictures_opened_elsewhere() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own warning, in the caller's hands
        image = Image.open(BytesIO(png_header(10_000, 10_000)))

    with pytest.raises(ImageError, match="pixels"):
        open_image(image)


def test_damaged_picture_opened_elsewhere() -> None:
    image = Image.open(BytesIO(encoded(rgb(200, 150), "JPEG")[:4000]))

    with pytest.raises(ImageError) as raised:
        open_image(image)
    assert "cannot be decoded" in one_line(raised.value, "the picture")


@pytest.mark.parametrize("kind", [str, Path])
def test_missing_file(kind: type, tmp_path: Path) -> None:
    file = tmp_path / "missing.png"

    with pytest.raises(ImageError) as raised:
        open_image(kind(file))
    assert one_line(raised.value, str(file)).endswith("does not exist")


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError) as raised:
        open_image(tmp_path)
    assert "is a folder" in one_line(raised.value, str(tmp_path))


@pytest.mark.parametrize("name", ["x" * 5000, "nul\0byte.png"])
def test_impossible_file_names(name: str) -> None:
    with pytest.raises(ImageError):
        open_image(name)


def test_postscript_is_refused_because_it_is_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "figure.eps"
    rgb(20, 20).save(file, "EPS")
    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *arguments: started.append(arguments))

    with pytest.raises(ImageError) as raised:
        open_image(file)
    assert "no picture of a known format" in one_line(raised.value, str(file))
    assert not started


def test_wrong_extension_does_not_matter(tmp_path: Path) -> None:
    file = tmp_path / "photo.jpg"
    file.write_bytes(encoded(rgb(40, 30), "PNG"))

    assert same(open_image(file), rgb(40, 30))


def several(container: str, **options: Any) -> bytes:
    return encoded(rgb(24, 17), container, save_all=True, append_images=[rgb(24, 17, 1)], **options)


@cache
def sound_files() -> list[bytes]:
    """Small files of every kind, with the optional parts that have decoders of their own."""
    exif = Image.Exif()
    exif[ORIENTATION], exif[0x010E] = 6, "a description"
    colour, few = rgb(24, 17), palette().crop((0, 0, 24, 17))
    return [
        *(encoded(colour, container, exif=exif) for container in ("PNG", "JPEG", "WEBP", "TIFF")),
        *(several(container) for container in ("PNG", "MPO", "WEBP")),
        several("TIFF", compression="tiff_lzw"),
        encoded(few, "PNG", transparency=3),
        encoded(colour, "JPEG", progressive=True),
        encoded(few, "GIF", transparency=3),
        encoded(few, "GIF", save_all=True, append_images=[few.rotate(90)]),
        encoded(rgba().crop((90, 0, 114, 17)), "WEBP", lossless=True),
        encoded(few, "TIFF", compression="tiff_adobe_deflate"),
        encoded(grey(24, 17).convert("1"), "TIFF", compression="group4"),
        *(encoded(image, "BMP") for image in (colour, few)),
        encoded(rgba().resize((32, 32)), "ICO", sizes=[(16, 16), (32, 32)]),
        encoded(colour, "TGA", compression="tga_rle"),
        encoded(colour, "PPM"),
    ]


def damage(data: bytes, dice: random.Random) -> bytes:
    file = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 4))):
        place = dice.randrange(min(len(file), dice.choice((64, 256, 100_000))))  # headers first
        match dice.randrange(5):
            case 0 | 1:
                file[place] = dice.randrange(256)
            case 2:
                file[place : place + 4] = dice.choice((b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff"))
            case 3:
                file[place : place + dice.randrange(9)] = dice.randbytes(dice.randrange(9))
            case 4:
                del file[max(place, 1) :]
    return bytes(file)


@pytest.mark.parametrize("seed", range(20))
def test_damaged_bytes_decode_or_raise_image_error(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_PIXELS", 1_000_000)  # a damaged header may claim much that is no bomb yet
    dice = random.Random(seed)
    outcomes = {"decoded": 0, "refused": 0}

    for _ in range(100):
        data = damage(dice.choice(sound_files()), dice)
        try:
            image = open_image(data)
        except ImageError as error:
            one_line(error, "the picture")
            outcomes["refused"] += 1
        else:
            assert image.mode == "RGB"
            outcomes["decoded"] += 1

    assert min(outcomes.values()) > 0  # neither harmless nor hopeless


NONSENSE = b"".join(  # two EXIF entries: orientation 6, and a description that lies behind the end of the file
    (
        b"Exif\0\0II*\0",
        struct.pack("<IH", 8, 2),
        struct.pack("<HHII", ORIENTATION, 3, 1, 6),
        struct.pack("<HHII", 0x010E, 2, 0xFFFF, 0x7F000000),
        bytes(4),
    )
)


def test_photo_with_damaged_metadata_is_read() -> None:
    """Pillow warns of it, but the pixels and the orientation are sound."""
    image = open_image(encoded(rgb(48, 32), "JPEG", exif=NONSENSE))

    assert image.size == (32, 48)
