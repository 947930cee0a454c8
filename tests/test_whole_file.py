"""A file is there whole or not at all, and for all who may read its folder."""

import os
import stat

import pytest

from nc_tools._support.atomic_write import atomic_write


def test_the_old_file_stays_until_the_block_has_ended_well(tmp_path):
    target = tmp_path / "told.txt"
    target.write_text("old")
    with atomic_write(target) as part:
        part.write_text("new")
        assert part.parent == tmp_path  # a rename within a folder is one step
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("begun", [True, False])
def test_what_fails_leaves_the_old_file_and_no_part(tmp_path, error, begun):
    target = tmp_path / "told.txt"
    target.write_text("old")

    def fail() -> None:
        with atomic_write(target) as part:
            if begun:
                part.write_text("ne")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_others_may_read_it_as_the_umask_says(tmp_path):
    before = os.umask(0o022)
    try:
        with atomic_write(tmp_path / "told.txt") as part:
            part.write_text("new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "told.txt").stat().st_mode) == 0o644
