"""Which of the processors that a process may use it should compute on: full cores, each of them once.

The products of a graph are cut into equal parts, one a thread, and the slowest part is waited for. So a thread on a
slow core holds up the others, and two threads on one core share the units that multiply. The engines' own defaults are
alike: ONNX Runtime takes the physical cores (its page "Thread management"), OpenVINO's latency hint one thread a core
and, in int8, performance cores alone unless there are four times as many others (its page "Performance Hints and
Thread Scheduling"). It has not been measured here what that is worth.

What the kernel tells is described in its Documentation/ABI/testing/sysfs-devices-system-cpu, and where Intel's kinds of
core stand in sysfs-bus-event_source-devices.
"""

import ctypes
import sys
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path

MANY_OTHERS = 4
"""With so many times as many others, performance cores do not compute alone."""
AS_FAST = 0.75
"""A core is a performance core if it is faster than so much of the fastest: the fast ones of an Arm processor may
differ by a few percent, and an efficient one has 0.75 of a 12900K's base frequency."""


def full_cores(allowed: Collection[int], root: Path = Path("/")) -> int:
    """How many of these processors to compute on.

    In a virtual machine, threads of one core count as that many processors: what it shows is its host's choice, and the
    published figures were taken on such machines with as many threads as processors.

    Args:
        allowed: Numbers of the processors that this process may use, as the system counts them.
        root: Where the system's files are.
    """
    if sys.platform == "darwin":
        return performance_cores_of_macos(len(allowed), ctypes.CDLL(None).sysctlbyname)
    cpus = root / "sys/devices/system/cpu"
    chosen = _performance_cores({*allowed}, root)
    if _is_virtual(root):
        return len(chosen)
    return len({_siblings(cpus / f"cpu{number}", number) for number in chosen})


def performance_cores_of_macos(allowed: int, sysctlbyname: Callable[..., int]) -> int:
    """Those of the first performance level, by the C library's function; all where there are no levels (Intel)."""
    level, size = ctypes.c_int(0), ctypes.c_size_t(ctypes.sizeof(ctypes.c_int))
    told = sysctlbyname(b"hw.perflevel0.logicalcpu", ctypes.byref(level), ctypes.byref(size), None, 0) == 0
    return _unless_few(min(level.value, allowed), allowed) if told and level.value > 0 else allowed


def _performance_cores(allowed: set[int], root: Path) -> set[int]:
    fast = _intel(root) & allowed or _fastest(allowed, root / "sys/devices/system/cpu")
    return fast if _unless_few(len(fast), len(allowed)) == len(fast) else allowed


def _unless_few(fast: int, allowed: int) -> int:
    return fast if 0 < allowed - fast < MANY_OTHERS * fast else allowed


def _intel(root: Path) -> set[int]:
    """The performance cores of a processor of Intel's that has two kinds; empty if this is none."""
    with suppress(OSError, ValueError):
        return {*_numbers((root / "sys/devices/cpu_core/cpus").read_text())}
    return set()


def _fastest(allowed: set[int], cpus: Path) -> set[int]:
    """By the capacity that the kernel gives each core, else by its base frequency; all where it tells neither."""
    for name in ("cpu_capacity", "cpufreq/base_frequency"):
        with suppress(OSError, ValueError):
            speeds = {number: int((cpus / f"cpu{number}" / name).read_text()) for number in allowed}
            return {number for number, speed in speeds.items() if speed > AS_FAST * max(speeds.values())}
    return allowed


def _siblings(cpu: Path, number: int) -> frozenset[int]:
    """The threads of a processor's core."""
    with suppress(OSError, ValueError):
        return frozenset(_numbers((cpu / "topology/thread_siblings_list").read_text()))
    return frozenset({number})


def _numbers(text: str) -> Iterable[int]:
    """A list as the kernel writes it: 0-3,8."""
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def _is_virtual(root: Path) -> bool:
    """Whether an x86 processor says that a hypervisor runs it."""
    with suppress(OSError):
        for line in (root / "proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("flags"):
                return "hypervisor" in line.split()
    return False
