"""What this machine offers: processor, memory, versions of what is installed."""

import ctypes
import os
import platform
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

FEATURES = {
    "amx": {"amx_int8", "amx_bf16"},
    "bf16": {"avx512_bf16", "avx_ne_convert", "bf16"},
    "vnni": {"avx512_vnni", "avx_vnni"},
    "avx512": {"avx512f"},
    "avx2": {"avx2"},
    "i8mm": {"i8mm"},
    "dotprod": {"asimddp"},
    "neon": {"asimd", "neon"},
}
"""Instructions that an engine's speed depends on, by the flags that Linux has for them; the last three are Arm's."""


MACOS_FLAGS = {
    "hw.optional.avx2_0": "avx2",
    "hw.optional.avx512f": "avx512f",
    "hw.optional.avx512vnni": "avx512_vnni",
    "hw.optional.neon": "asimd",
    "hw.optional.arm.FEAT_DotProd": "asimddp",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.arm.FEAT_BF16": "bf16",
}
"""What sysctl calls them."""
WINDOWS_FLAGS = {40: "avx2", 41: "avx512f", 19: "asimd", 43: "asimddp"}
"""Numbers of IsProcessorFeaturePresent."""


def processor_name() -> str:
    """As the system tells it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@cache
def processor_flags() -> tuple[str, ...]:
    """What the system says of the processor's instructions, in Linux's words; empty where it says nothing.

    Windows tells of AVX2, AVX-512 and Arm's dot products, but of no VNNI (IsProcessorFeaturePresent in winnt.h).
    """
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                return tuple(line.partition(":")[2].split())
    with suppress(OSError, AttributeError):
        if sys.platform == "darwin":
            return flags_of_macos(ctypes.CDLL(None).sysctlbyname)
        if sys.platform == "win32":
            present = ctypes.windll.kernel32.IsProcessorFeaturePresent  # type: ignore[attr-defined, unused-ignore]
            return tuple(flag for number, flag in WINDOWS_FLAGS.items() if present(number))
    return ()


def flags_of_macos(sysctlbyname: Callable[..., int]) -> tuple[str, ...]:
    """Those of `MACOS_FLAGS` that the C library's function of that name finds to be 1."""
    found = []
    for name, flag in MACOS_FLAGS.items():
        value, size = ctypes.c_int(0), ctypes.c_size_t(ctypes.sizeof(ctypes.c_int))
        if sysctlbyname(name.encode(), ctypes.byref(value), ctypes.byref(size), None, 0) == 0 and value.value == 1:
            found.append(flag)
    return tuple(found)


def processor_features() -> list[str]:
    """Those of `FEATURES` that the processor has; where the system does not tell, what every such processor has."""
    flags = {*processor_flags()} or ({"asimd"} if platform.machine() in {"arm64", "aarch64", "ARM64"} else set())
    return [name for name, any_of in FEATURES.items() if any_of & flags]


def memory_bytes() -> tuple[int | None, int | None]:
    """How much memory there is for this process, and how much of it is free; None where the system does not tell."""
    total = free = None
    with suppress(OSError, ValueError, AttributeError):  # Windows has no sysconf
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    with suppress(OSError, ValueError):  # a container's bound; without one the file says "max"
        bound = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8"))
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="utf-8"))
        total, free = min(total or bound, bound), min(free or bound, bound - used)
    return total, free


def processor_quota() -> float | None:
    """Processors' worth of time that a container may use; None without a bound."""
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        return int(quota) / int(period)
    return None


def installed_version(distribution: str) -> str | None:
    """Of a package; None if it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
