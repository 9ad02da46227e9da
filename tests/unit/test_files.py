"""Files that are read, and files that are given new contents."""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from papr_hook import files
from papr_hook.domainxml.text import MAX_BYTES
from papr_hook.errors import InputError


class Endless(io.RawIOBase):
    """A stream without an end, which counts what is read from it."""

    total = 0

    def read(self, size: int = -1) -> bytes:
        """Return as many spaces as are asked for."""
        assert size >= 0
        self.total += size
        return b" " * size


def test_a_stream_is_read_as_far_as_domain_xml_may_be_long() -> None:
    """One byte more than the maximum is read, which is enough to refuse it."""
    stream = Endless()
    assert len(files.read("-", stream)) == MAX_BYTES + 1  # type: ignore[arg-type]
    assert stream.total == MAX_BYTES + 1


@pytest.mark.parametrize("name", ["/nowhere/guest.xml", "/"])
def test_a_file_that_cannot_be_read(name: str) -> None:
    """A missing file and a directory are input errors."""
    with pytest.raises(InputError, match="No such file|Is a directory"):
        files.read(name, io.BytesIO())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with contents and a mode that no new file has."""
    made = tmp_path / "guest.xml"
    made.write_bytes(b"old")
    made.chmod(0o604)
    return made


def test_a_new_file_takes_the_place_of_the_old(file: Path) -> None:
    """Contents are replaced in one step: another inode, the same mode, and no temporary file is left."""
    before = file.stat()
    files.replace(str(file), b"new contents")
    after = file.stat()
    assert file.read_bytes() == b"new contents"
    assert after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_stays(file: Path) -> None:
    """A file of another user stays that user's."""
    os.chown(file, 1234, 2345)
    files.replace(str(file), b"new")
    assert (file.stat().st_uid, file.stat().st_gid) == (1234, 2345)


def test_extended_attributes_stay(file: Path) -> None:
    """Extended attributes stay, and with them ACLs, which are stored in them."""
    attributes = {"user.note": b"value"}
    if os.geteuid() == 0:
        # Version 2; user::rw-, user:1:r--, group::---, mask::r--, other::r-- (linux/posix_acl_xattr.h).
        entries = ["01000600ffffffff", "0200040001000000", "04000000ffffffff", "10000400ffffffff", "20000400ffffffff"]
        attributes["system.posix_acl_access"] = bytes.fromhex("02000000" + "".join(entries))
    for name, value in attributes.items():
        try:
            os.setxattr(file, name, value)
        except OSError as error:
            pytest.skip(f"{name} on this file system: {error}")
    files.replace(str(file), b"new")
    assert file.read_bytes() == b"new"
    assert {name: os.getxattr(file, name) for name in attributes} == attributes


def test_hard_links_stay(file: Path) -> None:
    """A file with a second name is overwritten, so that both names have the new contents."""
    other = file.parent / "other.xml"
    os.link(file, other)
    for contents in (b"much longer than it was", b"short"):
        files.replace(str(file), contents)
        assert other.read_bytes() == file.read_bytes() == contents
    assert file.samefile(other)


@pytest.mark.parametrize("linked", [False, True])
def test_a_file_that_does_not_fit_is_unchanged(linked: bool, file: Path) -> None:
    """If the new contents do not fit, the old ones stay, also in a file with a second name."""
    if linked:
        os.link(file, file.parent / "other.xml")
    before = sorted(file.parent.iterdir())
    program = "import sys; from papr_hook import files; files.replace(sys.argv[1], bytes(5000))"
    done = subprocess.run(
        [sys.executable, "-c", program, str(file)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "InputError: File too large; the file is unchanged" in done.stderr
    assert file.read_bytes() == b"old"
    assert sorted(file.parent.iterdir()) == before


def test_a_directory_in_which_nothing_can_be_made_is_named() -> None:
    """The error names the directory in which no file can be made."""
    with pytest.raises(InputError, match="^/proc: .*; the file is unchanged"):
        files.replace("/proc/version", b"new")
