"""How many threads compute where cores differ or have two threads, by trees of /sys such as kernels show."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from smolvlm_edge.graphs import available_cores
from smolvlm_edge.graphs.topology import full_cores, performance_cores_of_macos

linux_only = pytest.mark.skipif(sys.platform == "darwin", reason="macOS is asked otherwise")


def machine(root: Path, files: Mapping[str, str], siblings: Mapping[str, int] | None = None, flags: str = "") -> Path:
    """A system's files: `siblings` is a list of threads -> how many processors of the kind, from the first on."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    for threads in siblings or {}:
        for number in range(int(threads.split("-")[0]), int(threads.split("-")[-1]) + 1):
            file = root / f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{threads}\n")
    (root / "proc").mkdir(parents=True, exist_ok=True)
    (root / "proc/cpuinfo").write_text(f"processor\t: 0\nflags\t\t: fpu avx2 {flags}\n")
    return root


def of_each(name: str, values: list[int]) -> dict[str, str]:
    return {f"sys/devices/system/cpu/cpu{number}/{name}": str(value) for number, value in enumerate(values)}


PAIRS = {"0-1": 2, "2-3": 2, "4-5": 2, "6-7": 2}


@linux_only
def test_threads_of_one_core_count_once(tmp_path: Path) -> None:
    """As a Ryzen with four cores."""
    root = machine(tmp_path, {}, PAIRS)
    assert full_cores(range(8), root) == 4
    assert full_cores({0, 2, 3}, root) == 2
    assert full_cores({0}, root) == 1


@linux_only
def test_a_virtual_machine_keeps_all_its_processors(tmp_path: Path) -> None:
    root = machine(tmp_path, {}, {"0-1": 2}, flags="hypervisor")
    assert full_cores(range(2), root) == 2


@linux_only
def test_intels_performance_cores(tmp_path: Path) -> None:
    """As a 1260P: four cores of two threads, and eight without; then a 1235U with two of the fast ones."""
    alone = {str(number): 1 for number in range(8, 16)}
    files = {"sys/devices/cpu_core/cpus": "0-7", "sys/devices/cpu_atom/cpus": "8-15"}
    root = machine(tmp_path / "1260P", files, {**PAIRS, **alone})
    assert full_cores(range(16), root) == 4
    assert full_cores(range(8, 16), root) == 8, "where affinity leaves slow cores alone, they compute"
    files = {"sys/devices/cpu_core/cpus": "0-1", "sys/devices/cpu_atom/cpus": "2-9"}
    many = {str(number): 1 for number in range(10)}
    assert full_cores(range(10), machine(tmp_path / "few", files, many)) == 10


@linux_only
@pytest.mark.parametrize(
    ("name", "values", "cores"),
    [
        ("cpu_capacity", [430] * 4 + [1024, 1024, 1007, 1007], 4),  # fast cores of two speeds
        ("cpu_capacity", [1024] * 4, 4),  # all alike
        ("cpufreq/base_frequency", [3_200_000] * 8 + [2_400_000] * 8, 8),  # as a 12900K without threads
        ("cpu_capacity", [1024] + [300] * 7, 8),
    ],
)
def test_cores_that_the_kernel_calls_slower(tmp_path: Path, name: str, values: list[int], cores: int) -> None:
    assert full_cores(range(len(values)), machine(tmp_path, of_each(name, values))) == cores


@linux_only
@pytest.mark.parametrize("text", ["", "nonsense", "3-"])
def test_what_cannot_be_read_leaves_all(tmp_path: Path, text: str) -> None:
    files = {"sys/devices/cpu_core/cpus": text, **dict.fromkeys(of_each("cpu_capacity", [0, 0]), text)}
    assert full_cores(range(2), machine(tmp_path, files)) == 2
    assert full_cores(range(3), tmp_path / "no such files") == 3


@linux_only
def test_the_default_number_of_threads_goes_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert available_cores(machine(tmp_path, {}, PAIRS)) == 4


@pytest.mark.parametrize(("told", "allowed", "cores"), [(4, 8, 4), (None, 8, 8), (8, 8, 8), (4, 2, 2), (0, 4, 4)])
def test_performance_cores_of_macos(told: int | None, allowed: int, cores: int) -> None:
    """As an M2, an Intel, an M without efficient cores."""

    def sysctlbyname(name: bytes, value: Any, size: Any, new: None, new_size: int) -> int:
        assert name == b"hw.perflevel0.logicalcpu"
        if told is None:
            return -1
        ctypes.cast(value, ctypes.POINTER(ctypes.c_int))[0] = told
        return 0

    assert performance_cores_of_macos(allowed, sysctlbyname) == cores


@pytest.mark.skipif(sys.platform != "linux", reason="asks lscpu")
def test_this_machine_has_no_more_threads_than_lscpu_counts_processors() -> None:
    count = subprocess.run(["lscpu", "--parse=CPU"], capture_output=True, text=True, check=True).stdout
    online = [line for line in count.splitlines() if not line.startswith("#")]
    assert 1 <= available_cores() <= len(online)
