"""What other systems than Linux say of a processor, by fakes of their functions."""

import ctypes
from typing import Any

from smolvlm_edge import machine


def test_what_macos_tells() -> None:
    """As on an M2: names that are missing are an error, others are 1 or 0."""
    told = {b"hw.optional.neon": 1, b"hw.optional.arm.FEAT_DotProd": 1, b"hw.optional.arm.FEAT_I8MM": 0}

    def sysctlbyname(name: bytes, value: Any, size: Any, new: None, new_size: int) -> int:
        if name not in told:
            return -1
        ctypes.cast(value, ctypes.POINTER(ctypes.c_int))[0] = told[name]
        return 0

    assert machine.flags_of_macos(sysctlbyname) == ("asimd", "asimddp")


def test_every_flag_that_a_system_is_asked_for_means_something() -> None:
    known = {flag for any_of in machine.FEATURES.values() for flag in any_of}
    assert {*machine.MACOS_FLAGS.values(), *machine.WINDOWS_FLAGS.values()} <= known
