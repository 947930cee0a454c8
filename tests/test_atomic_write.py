"""A file is written completely or not at all, with the permissions that the umask gives."""

import os
import stat

import pytest

from nc_tools._support.atomic_write import atomic_write


def test_the_old_file_stays_until_the_block_ends_without_an_error(tmp_path):
    target = tmp_path / "notes.txt"
    target.write_text("old")
    with atomic_write(target) as part:
        part.write_text("new")
        assert part.parent == tmp_path  # a rename within a folder is one step
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("partly_written", [True, False])
def test_an_exception_leaves_the_old_file_and_no_new_file(tmp_path, error, partly_written):
    target = tmp_path / "notes.txt"
    target.write_text("old")

    def fail() -> None:
        with atomic_write(target) as part:
            if partly_written:
                part.write_text("ne")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_umask_decides_who_may_read_the_file(tmp_path):
    before = os.umask(0o022)
    try:
        with atomic_write(tmp_path / "notes.txt") as part:
            part.write_text("new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "notes.txt").stat().st_mode) == 0o644
