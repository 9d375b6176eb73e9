"""Memory that an engine has no more use for."""

import ctypes
import mmap
import os
import re
from contextlib import suppress
from pathlib import Path

MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \d+ *(.*)")
"""The head of a mapping in /proc/self/smaps, see proc_pid_smaps(5): its addresses, and the file."""


def return_freed_memory() -> None:
    """Give freed memory back to the system: glibc would keep 60 MB of a closed vision encoder for itself."""
    with suppress(OSError, AttributeError, TypeError):  # not glibc; Windows has no library without a name
        ctypes.CDLL(None).malloc_trim(0)


def unload_file(path: Path) -> None:
    """Let go of a file's pages that are mapped into this process; where one is wanted after all, it comes back.

    An engine reads the weights that it packs from their file once, and those pages would count as this process's as
    long as the file is mapped: 230 MB of the 2.2B shape. Nothing is done where the system does not tell what is mapped,
    or a page of the mapping was written to.
    """
    with suppress(OSError, AttributeError, TypeError):  # not Linux
        madvise, file = ctypes.CDLL(None).madvise, os.path.realpath(path)
        for start, end in _clean_mappings(file, Path("/proc/self/smaps").read_text(encoding="utf-8")):
            madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)


def _clean_mappings(file: str, smaps: str) -> list[tuple[int, int]]:
    """Start and end of the mappings of a file that hold no page of their own."""
    found, place = [], (0, 0)
    for line in smaps.splitlines():
        if head := MAPPING.fullmatch(line):
            place = (int(head[1], 16), int(head[2], 16)) if head[3] == file else (0, 0)
        elif place[1] and line.split() == ["Anonymous:", "0", "kB"]:
            found.append(place)
    return found
