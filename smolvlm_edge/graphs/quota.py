"""How much processor time a container or service may take: the quota of Linux control groups, version 1 and 2.

The files are described in the kernel's Documentation/admin-guide/cgroup-v2.rst (`cpu.max`) and
Documentation/scheduler/sched-bwc.rst (`cpu.cfs_quota_us`); where they are, in cgroups(7) and proc_pid_mountinfo(5).
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Processors' worth of time that this process may take: the least of its control group and of all around it.

    Args:
        root: Where the system's files are.

    Returns:
        None without a limit, or where there are no control groups.
    """
    with suppress(OSError, ValueError, IndexError):  # not Linux, or a layout that is not known here
        return min((quota for folder in _groups(root) if (quota := _quota(folder)) is not None), default=None)
    return None


def _groups(root: Path) -> Iterator[Path]:
    """The folders of this process's groups, of either version, each followed by those around it."""
    memberships = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
    for line in (root / "proc/self/mountinfo").read_text().splitlines():
        mount, _, system = line.partition(" - ")
        top, mount_point = mount.split()[3:5]
        kind, _, controllers = system.split()[:3]
        for _, names, group in memberships:
            version_1 = kind == "cgroup" and "cpu" in names.split(",") and "cpu" in controllers.split(",")
            if version_1 or (kind == "cgroup2" and not names):
                folder = root / mount_point.lstrip("/")
                # a container sees its own group as the top, though it may be told its path on the host
                inside = PurePosixPath(group).relative_to(top) if PurePosixPath(group).is_relative_to(top) else ""
                yield folder / inside
                yield from (folder / above for above in PurePosixPath(inside).parents)


def _quota(folder: Path) -> float | None:
    """What one group grants; `max` and -1 are no limit."""
    if (file := folder / "cpu.max").is_file():
        quota, period = file.read_text().split()
    elif (file := folder / "cpu.cfs_quota_us").is_file():
        quota, period = file.read_text().strip(), (folder / "cpu.cfs_period_us").read_text()
    else:
        return None
    return None if quota in ("max", "-1") else int(quota) / int(period)
