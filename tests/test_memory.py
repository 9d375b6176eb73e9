"""Memory that is given back while a model is open, and that nothing is lost with it."""

import mmap
import sys
from pathlib import Path

import numpy as np
import pytest

from smolvlm_edge.graphs import Decoder
from smolvlm_edge.graphs.engines import open_engine
from smolvlm_edge.graphs.memory import unload_file

SIZE = 4 << 20
linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing tells what is mapped")


def resident(path: Path) -> int:
    """Bytes of a file's mappings that are in memory, by /proc/self/smaps."""
    found, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            ours = line.endswith(str(path))
        elif ours and line.startswith("Rss:"):
            found += int(line.split()[1]) * 1024
    return found


def resident_bytes() -> int:
    """What this process has in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


@linux
def test_pages_of_a_file_go_and_come_back(tmp_path: Path) -> None:
    content, other = np.random.default_rng(0).bytes(SIZE), np.random.default_rng(1).bytes(SIZE)
    files = {tmp_path / "weights with a space.data": content, tmp_path / "other.data": other}
    maps = {}
    for path, data in files.items():
        path.write_bytes(data)
        with path.open("rb") as file:
            maps[path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        assert maps[path][:] == data
    path = next(iter(files))
    assert resident(path) == SIZE
    (tmp_path / "link").symlink_to(path)
    unload_file(tmp_path / "link")
    assert resident(path) == 0
    assert resident(tmp_path / "other.data") == SIZE
    assert maps[path][:] == content


@linux
def test_a_page_that_was_written_to_is_never_lost(tmp_path: Path) -> None:
    path = tmp_path / "weights.data"
    path.write_bytes(bytes(SIZE))
    with path.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    mapping[SIZE // 2] = 7
    unload_file(path)
    assert mapping[SIZE // 2] == 7


def test_a_file_that_is_not_there_is_no_matter(tmp_path: Path) -> None:
    unload_file(tmp_path / "none")


@pytest.fixture
def decoder(tiny_bundle) -> Decoder:
    return open_engine("onnxruntime", threads=1).decoder(tiny_bundle("tiny-idefics3", "fp32") / "decoder.onnx")


def test_a_cache_that_grows_keeps_what_it_holds(decoder: Decoder, tiny_bundle) -> None:
    """Step by step, as an answer does it, and as if there had been room for all of it from the start."""
    alone = open_engine("onnxruntime", threads=1).decoder(tiny_bundle("tiny-idefics3", "fp32") / "decoder.onnx")
    embeds = np.random.default_rng(0).standard_normal((600, 64), np.float32)
    embeds = embeds[:, : alone._session.get_inputs()[0].shape[-1]]
    alone.reserve(2000)
    for start in range(0, 600, 100):
        np.testing.assert_array_equal(decoder(embeds[start : start + 100]), alone(embeds[start : start + 100]))


@linux
def test_room_that_is_not_used_takes_no_memory_and_goes_when_the_decoder_closes(decoder: Decoder) -> None:
    decoder.reserve(256)
    before = resident_bytes()
    decoder.reserve(1 << 20)
    room = sum(cache.values.nbytes for cache in decoder._caches.values())
    assert room > 64 << 20
    assert resident_bytes() - before < room / 8
    for cache in decoder._caches.values():
        cache.values[:] = 1
    filled = resident_bytes()
    assert filled - before > room * 0.9
    del cache
    decoder.close()
    assert filled - resident_bytes() > room * 0.9
