from pathlib import Path

import pytest

from regraft.cgroup import quota_cpus


def system(root: Path, membership: str, **groups: str) -> Path:
    """Write a file system: what /proc/self/cgroup says, and files of groups by their path below /sys/fs/cgroup."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(membership)
    for path, text in groups.items():
        file = root / "sys/fs/cgroup" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    return root


def v1(path: str, quota: int, period: int = 100_000) -> dict[str, str]:
    return {f"{path}/cpu.cfs_quota_us": str(quota), f"{path}/cpu.cfs_period_us": str(period)}


UNIT = "system.slice/regraft.service"


@pytest.mark.parametrize(
    ("membership", "groups", "cpus"),
    [
        pytest.param(f"0::/{UNIT}\n", {f"{UNIT}/cpu.max": "150000 100000"}, 1.5, id="CPUQuota of a unit, version 2"),
        pytest.param(f"0::/{UNIT}\n", {f"{UNIT}/cpu.max": "max 100000"}, None, id="a unit without one"),
        pytest.param(
            f"0::/{UNIT}\n",
            {f"{UNIT}/cpu.max": "400000 100000", "system.slice/cpu.max": "200000 100000"},
            2.0,
            id="the slice above has less",
        ),
        pytest.param("0::/\n", {"cpu.max": "50000 100000"}, 0.5, id="a container with a view of its own, version 2"),
        pytest.param("0::/docker/abc\n", {"cpu.max": "300000 100000"}, 3.0, id="a container that sees the host's path"),
        pytest.param(f"4:cpu,cpuacct:/{UNIT}\n", v1(f"cpu,cpuacct/{UNIT}", 250_000), 2.5, id="a unit, version 1"),
        pytest.param(f"4:cpuacct,cpu:/{UNIT}\n", v1(f"cpu/{UNIT}", 250_000), 2.5, id="its link, version 1"),
        pytest.param(f"1:cpu:/\n0::/{UNIT}\n", v1("cpu", -1), None, id="no quota, version 1"),
        pytest.param("1:cpu:/docker/abc\n", v1("cpu", 100_000, 50_000), 2.0, id="a container, version 1"),
        pytest.param(f"2:cpuset:/{UNIT}\n", v1(f"cpu/{UNIT}", 100_000), None, id="a group of another controller"),
        pytest.param(f"0::/{UNIT}\n", {f"{UNIT}/cpu.max": "nonsense"}, None, id="nonsense"),
        pytest.param("", {"cpu.max": "200000 100000"}, 2.0, id="nothing said of the process"),
    ],
)
def test_the_least_quota_of_the_processs_own_group_and_those_above_counts(
    membership: str, groups: dict[str, str], cpus: float | None, tmp_path: Path
) -> None:
    assert quota_cpus(system(tmp_path, membership, **groups)) == cpus


def test_where_there_are_no_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert quota_cpus(tmp_path) is None


def test_this_process_has_a_quota_of_some_cpus_or_none() -> None:
    quota = quota_cpus()

    assert quota is None or quota > 0
