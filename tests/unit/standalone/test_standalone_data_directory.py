"""The data directory: its lock, its secrets."""

import stat
from pathlib import Path

import pytest

from standalone.data_directory import DataDirectory, DirectoryInUse


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    made = DataDirectory(tmp_path / "deep" / "budkavle-data")
    made.create()
    return made


def test_secrets_are_made_once_and_readable_by_their_owner_alone(directory: DataDirectory) -> None:
    keys = directory.secret_keys()
    admin, is_new = directory.admin_key()
    again, is_new_again = DataDirectory(directory.path).admin_key()
    assert len(keys) >= 32
    assert (is_new, is_new_again) == (True, False)
    assert admin == again == directory.kept_admin_key()
    assert directory.secret_keys() == keys
    for path in directory.path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700


def test_a_directory_belongs_to_one_at_a_time(directory: DataDirectory) -> None:
    with directory.locked():
        with pytest.raises(DirectoryInUse, match="in use by another Budkavle"), DataDirectory(directory.path).locked():
            pass
    with DataDirectory(directory.path).locked():
        pass
