"""The table in docs/hosts.md, against the hosts that the tests start."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.harness.booted_host import NEWEST, RELEASES
from tests.harness.modular import MODULAR
from tests.helpers.paths import PROJECT

PAGE = PROJECT / "docs/hosts.md"

SYSVINIT = "sysvinit"
POWER = "power"

NAMES = {
    "bookworm": "Debian 12",
    SYSVINIT: "Debian 12 with sysvinit",
    "trixie": "Debian 13",
    MODULAR: "Debian 13 with modular daemons",
    "sid": "Debian sid",
    POWER: "Debian 12 on emulated POWER",
}
"""The page's names of the hosts."""

KINDS = (*RELEASES, SYSVINIT, MODULAR, NEWEST, POWER)
"""The kinds of hosts that the tests start. A test on each calls assert_described()."""

COLUMNS = ("daemon", "libvirt", "QEMU", "init", "architecture", "kernel's pages")

OR_LATER = " or later"


def rows() -> dict[str, dict[str, str]]:
    """Return the table's rows by the names of the hosts, each with its cells by the names of the columns."""
    table = [line.strip("|").split("|") for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    cells = [[cell.strip() for cell in row] for row in table if len(row) == len(COLUMNS) + 1]
    header, _, *body = cells
    return {row[0]: dict(zip(header[1:], row[1:])) for row in body}


def assert_described(kind: str, daemon: str, output: Callable[..., str]) -> None:
    """Compare a host with its row.

    Args:
        kind: one of KINDS.
        daemon: the daemon that serves its QEMU guests.
        output: runs a command on the host, and returns what it prints.
    """
    init = output("cat", "/proc/1/comm").strip()
    found = {
        "daemon": daemon,
        "libvirt": _version(output(daemon, "--version")),
        "QEMU": _version(output("qemu-system-ppc64", "--version")),
        "init": f"systemd {output('systemctl', '--version').split()[1]}" if init == "systemd" else SYSVINIT,
        "architecture": output("uname", "-m").strip(),
        "kernel's pages": f"{int(output('getconf', 'PAGESIZE')) // 1024} KiB",
    }
    for column, cell in rows()[NAMES[kind]].items():
        if cell.endswith(OR_LATER):
            least = cell[: -len(OR_LATER)]
            assert _numbers(found[column]) >= _numbers(least), (column, cell, found[column])
        else:
            assert found[column] == cell, (column, cell, found[column])


def _version(text: str) -> str:
    """Return the first two numbers of the version in what a program says of itself."""
    found = re.search(r"\d+\.\d+", text)
    assert found is not None, text
    return found[0]


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]
