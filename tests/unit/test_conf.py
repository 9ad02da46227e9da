"""The setting that moves the sockets of a daemon that makes its own."""

from __future__ import annotations

import pytest

from papr_hook.gateway.setup.conf import is_marked, is_set_otherwise, with_upstream, without_upstream


@pytest.mark.parametrize("text", [b"", b"# nothing\n", b'log_level = 3\nunix_sock_group = "libvirt"\n'])
def test_what_is_added_can_be_taken_away(text: bytes) -> None:
    moved = with_upstream(text)
    assert b'unix_sock_dir = "/run/libvirt/upstream"' in moved
    assert is_marked(moved)
    assert not is_marked(text)
    assert with_upstream(moved) == moved
    assert without_upstream(moved) == text


def test_a_last_line_without_an_end_stays_a_line() -> None:
    assert with_upstream(b"log_level = 3").startswith(b"log_level = 3\nunix_sock_dir")


def test_a_setting_of_the_administrator_is_seen() -> None:
    assert is_set_otherwise(b'unix_sock_dir = "/run/mine"\n')
    assert not is_set_otherwise(b'#unix_sock_dir = "/run/mine"\n')
    assert not is_set_otherwise(with_upstream(b""))
