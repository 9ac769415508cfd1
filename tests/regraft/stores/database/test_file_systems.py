import logging
from pathlib import Path

import pytest

from regraft.stores.database.engine import database_at, prepare_database, sqlite_url
from regraft.stores.database.file_systems import network_file_system

TABLE = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 27 0:40 / {folder}/models rw,relatime shared:2 - nfs4 host:/export rw,vers=4.2
41 27 0:41 / {folder}/team\\040pictures rw - cifs //host/team rw
42 27 0:42 / {folder}/bucket rw - fuse.gcsfuse bucket rw
43 27 0:43 / {folder}/plain rw - fuse some-program rw
44 27 0:44 / {folder}/host rw - 9p hostshare rw,trans=virtio
45 27 0:45 / {folder}/layers rw - fuse.fuse-overlayfs overlay rw
46 40 254:1 / {folder}/models/here rw - xfs /dev/vdb rw
47 27 0:47 / {folder}/twice rw - nfs host:/old rw
48 27 254:2 / {folder}/twice rw - ext4 /dev/vdc rw
"""


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    table = tmp_path / "mountinfo"
    table.write_text(TABLE.format(folder=tmp_path))
    return table


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("models/.examples", "NFS (host:/export)"),
        ("team pictures", "SMB/CIFS (//host/team)"),
        ("bucket/a/b", "FUSE (bucket)"),
        ("plain", "FUSE (some-program)"),
        ("host/x", "9p (hostshare)"),
        ("layers/x", ""),
        ("models/here/x", ""),
        ("models2", ""),
        ("twice/x", ""),
        ("", ""),
    ],
)
def test_a_network_file_system_is_called_by_its_name(tmp_path: Path, mounts: Path, place: str, expected: str) -> None:
    assert network_file_system(tmp_path / place, mounts) == expected


def test_a_link_is_where_it_leads_to(tmp_path: Path, mounts: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "models")

    assert network_file_system(tmp_path / "link/x", mounts) == "NFS (host:/export)"


def test_where_nothing_is_known_of_mounts_nothing_is_said(tmp_path: Path) -> None:
    assert network_file_system(tmp_path, tmp_path / "nothing") == ""


def test_sqlite_on_a_network_file_system_is_warned_of_by_name(
    tmp_path: Path, mounts: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "regraft.database")
    for place in ("models", "elsewhere"):
        engine = database_at(sqlite_url(tmp_path / place / "examples.sqlite"))
        prepare_database(engine, mounts)
        engine.dispose()

    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith(f"{tmp_path}/models/examples.sqlite lies on NFS (host:/export)")
    assert "use PostgreSQL (--database)" in warning
