"""What this machine offers: processor, memory, versions of what is installed."""

import os
import platform
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


def processor_name() -> str:
    """As the system tells it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@cache
def processor_flags() -> tuple[str, ...]:
    """What Linux says of the processor's instructions; empty elsewhere."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                return tuple(line.partition(":")[2].split())
    return ()


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
