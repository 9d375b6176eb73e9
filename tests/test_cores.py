"""How many threads an engine gets by default: what affinity and control groups allow."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from smolvlm_edge.graphs import available_cores
from smolvlm_edge.graphs.quota import cpu_quota

V2 = "30 23 0:26 {top} /sys/fs/cgroup rw,nosuid,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "33 31 0:30 {top} /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct"
OTHERS = (
    "23 1 254:1 / / rw,relatime - ext4 /dev/sda rw",
    "34 31 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory",
)


def system(root: Path, groups: str, mount: str, files: dict[str, str]) -> Path:
    """A tree like that of a machine: proc(5) and the groups' files."""
    proc = root / "proc" / "self"
    proc.mkdir(parents=True)
    (proc / "cgroup").write_text(groups)
    (proc / "mountinfo").write_text("\n".join((*OTHERS, mount)) + "\n")
    for name, content in files.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return root


def test_a_container_of_version_2(tmp_path: Path) -> None:
    """As `docker run --cpus 1.5` on a machine of today: the group is the top of all that is seen."""
    root = system(tmp_path, "0::/\n", V2.format(top="/"), {"cpu.max": "150000 100000\n"})
    assert cpu_quota(root) == 1.5


def test_a_service_has_the_least_of_the_groups_around_it(tmp_path: Path) -> None:
    """systemd's CPUQuota on a slice holds for the services in it."""
    files = {
        "user.slice/app.slice/cpu.max": "max 100000\n",
        "user.slice/cpu.max": "60000 20000\n",
        "user.slice/app.slice/smol.service/cpu.max": "400000 100000\n",
        "other.slice/cpu.max": "10000 100000\n",
    }
    root = system(tmp_path, "0::/user.slice/app.slice/smol.service\n", V2.format(top="/"), files)
    assert cpu_quota(root) == 3


@pytest.mark.parametrize("top", ["/", "/docker/abc"])
def test_a_container_of_version_1_with_and_without_a_namespace(tmp_path: Path, top: str) -> None:
    """Without, the process is told its path on the host, of which it sees the last folder alone."""
    groups = f"8:memory:{top}\n4:cpu,cpuacct:{top}\n0::{top}\n"
    files = {"cpu,cpuacct/cpu.cfs_quota_us": "50000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}
    assert cpu_quota(system(tmp_path, groups, V1.format(top=top), files)) == 0.5


@pytest.mark.parametrize(
    ("mount", "files"),
    [
        (V2, {"cpu.max": "max 100000\n"}),
        (V2, {}),
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}),
        (V2, {"cpu.max": "nonsense\n"}),
        ("", {}),
    ],
)
def test_no_limit(tmp_path: Path, mount: str, files: dict[str, str]) -> None:
    groups = "4:cpu,cpuacct:/\n" if mount == V1 else "0::/\n"
    root = system(tmp_path, groups, mount.format(top="/"), files)
    assert cpu_quota(root) is None
    assert available_cores(root) == available_cores(tmp_path / "a system without such files")


@pytest.mark.parametrize(
    ("affinity", "quota", "cores"), [(8, 2.0, 2), (8, 1.5, 2), (8, 1.4, 1), (8, 0.1, 1), (2, 6.0, 2), (3, None, 3)]
)
def test_the_lesser_of_affinity_and_quota(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, affinity: int, quota: float | None, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)), raising=False)
    limit = "max" if quota is None else int(quota * 100_000)
    root = system(tmp_path, "0::/\n", V2.format(top="/"), {"cpu.max": f"{limit} 100000\n"})
    assert available_cores(root) == cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_affinity_is_that_of_the_process() -> None:
    program = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "from smolvlm_edge.graphs import available_cores; print(available_cores())"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout == "1\n"
