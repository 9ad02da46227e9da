"""The Ansible role on two hosts: one installs the Debian package, the other runs install.sh from an archive."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.harness.booted_host import PARTS, BootedHost, started
from tests.helpers.installation import CONF, CROWDED, directly, snapshot
from tests.helpers.packages import build, is_gated
from tests.helpers.paths import PROJECT

PLAYBOOK = f"""\
- hosts: all
  gather_facts: false
  roles: [{PROJECT}/packaging/ansible/papr_hook]
  tasks:
    - ansible.builtin.debug:
        msg: "{{{{ papr_hook_doctor | default('no fact') }}}}"
"""

GUEST = "herd"

SSH = """\
#!/bin/sh
# What ssh does for Ansible: run a command on a host. The connection is a container's namespaces.
while :; do
    case $1 in
    -[oplSF]) shift 2 ;;
    -*) shift ;;
    *) break ;;
    esac
done
shift
exec {enter} sh -c "$*"
"""


@dataclass(frozen=True)
class Fleet:
    """Two hosts, and the control node that they share."""

    hosts: dict[str, BootedHost]
    directory: Path

    def play(self, *options: str, **variables: object) -> Play:
        """Run the role on both hosts.

        Args:
            options: Options of ansible-playbook.
            variables: Variables of the role.
        """
        argv: list[str | Path] = [Path(sys.executable).with_name("ansible-playbook")]
        argv += ["-i", self.directory / "hosts.json"]
        environment = {
            **os.environ,
            "ANSIBLE_HOME": str(self.directory / "home"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_SSH_TRANSFER_METHOD": "piped",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_LOCALHOST_WARNING": "0",
            "LC_ALL": "C.UTF-8",
        }
        done = subprocess.run(
            [*argv, *options, "-e", json.dumps(variables), self.directory / "site.yml"],
            capture_output=True,
            text=True,
            env=environment,
            cwd=self.directory,
        )
        return Play(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Play:
    """A play that was run.

    Attributes:
        status: The exit status.
        out: What ansible-playbook printed.
        err: What it printed to standard error.
        recap: The counts of each host: ok, changed, failed and so on.
    """

    status: int
    out: str
    err: str
    recap: dict[str, dict[str, int]] = field(init=False)

    def __post_init__(self) -> None:
        counts = {}
        for line in self.out.partition("PLAY RECAP")[2].splitlines()[1:]:
            host, _, rest = line.partition(":")
            if rest:
                counts[host.strip()] = {name: int(value) for name, _, value in map(_split, rest.split())}
        object.__setattr__(self, "recap", counts)

    def changed(self) -> set[int]:
        """Return the numbers of tasks that changed something, if the play is through."""
        assert self.status == 0, self.out + self.err
        return {counts["changed"] for counts in self.recap.values()}


def _split(text: str) -> tuple[str, str, str]:
    return text.partition("=")


@pytest.fixture(scope="module")
def fleet(roots: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Boot two hosts, and write the inventory, the playbook, the package and the archive."""
    directory = tmp_path_factory.mktemp("control")
    (directory / "site.yml").write_text(PLAYBOOK)
    with tarfile.open(directory / "papr-hook.tar", "w") as archive:
        for part in PARTS:
            archive.add(PROJECT / part, f"papr-hook/{part}", filter=without_caches)
    sources = {
        "bookworm": {"papr_hook_package": str(build("build-deb", directory))},
        "trixie": {"papr_hook_archive": str(directory / "papr-hook.tar")},
    }
    inventory: dict[str, Any] = {"all": {"hosts": {}}}
    with ExitStack() as stack:
        hosts = {}
        for release, variables in sources.items():
            host = hosts[release] = stack.enter_context(started(roots, release, f"fleet-{release}"))
            host.sh("apt-get -qq update && apt-get -qq -y --no-install-recommends install python3")
            ssh = directory / f"ssh-{release}"
            ssh.write_text(SSH.format(enter=shlex.join(host.argv())))
            ssh.chmod(0o755)
            python = {"ansible_python_interpreter": "/usr/bin/python3"}
            inventory["all"]["hosts"][release] = {"ansible_ssh_executable": str(ssh), **python, **variables}
        (directory / "hosts.json").write_text(json.dumps(inventory))
        yield Fleet(hosts, directory)


def without_caches(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out what Python caches."""
    return None if "__pycache__" in member.name else member


@pytest.fixture(scope="module")
def installed(fleet: Fleet) -> Play:
    """Run the role for the first time, with guests that are defined already."""
    for host in fleet.hosts.values():
        define(host)
    return fleet.play(papr_hook_settings={"spares": 2})


def define(host: BootedHost) -> None:
    """Define a guest again that does not comply, past the gateway."""
    directly(host, "undefine", GUEST, check=False)
    host.write("/srv/guest.xml", CROWDED.replace("<name>crowd<", f"<name>{GUEST}<"))
    directly(host, "define", "/srv/guest.xml")


def count_vphbs(host: BootedHost) -> int:
    """Return how many vPHBs that guest has."""
    return host.virsh("dumpxml", GUEST).stdout.count("model='pci-root'")


def test_check_mode_changes_nothing(fleet: Fleet) -> None:
    """On bare hosts it says that something would change, and there is no fact yet."""
    before = {name: snapshot(host) for name, host in fleet.hosts.items()}
    play = fleet.play("--check", "--diff")
    assert 0 not in play.changed()
    assert play.out.count('"msg": "no fact"') == 2
    assert {name: snapshot(host) for name, host in fleet.hosts.items()} == before


def test_the_role_installs_and_adopts(fleet: Fleet, installed: Play) -> None:
    """Both hosts have the gateway, the settings, and their guests laid out; doctor's findings are a fact."""
    assert 0 not in installed.changed()
    for host in fleet.hosts.values():
        assert is_gated(host)
        assert count_vphbs(host) > 2
        assert host.run("cat", CONF).stdout == "[papr-hook]\nspares = 2\n"
    assert installed.out.count('"severity": ') >= 2
    assert "no fact" not in installed.out


def test_a_play_that_is_repeated_changes_nothing(fleet: Fleet, installed: Play) -> None:
    """No task changes anything."""
    assert fleet.play(papr_hook_settings={"spares": 2}).changed() == {0}


def test_check_mode_shows_the_plan(fleet: Fleet, installed: Play) -> None:
    """The diff has a guest's tree before and after, and the guest stays as it is."""
    for host in fleet.hosts.values():
        define(host)
    play = fleet.play("--check", "--diff", papr_hook_settings={"spares": 2})
    assert play.changed() == {1}
    assert play.out.count("--- before: herd") == 2
    assert play.out.count("-herd  1 vPHB, 0 spare") == 2
    assert "+├── vPHB 1" in play.out
    assert {count_vphbs(host) for host in fleet.hosts.values()} == {1}


def test_what_a_host_lacks_fails_its_play(fleet: Fleet, installed: Play) -> None:
    """A guest that a host does not have fails it with papr-hook's message, and changes nothing."""
    play = fleet.play(papr_hook_guests=["nobody"], papr_hook_settings={"spares": 2})
    assert play.status != 0
    assert {counts["failed"] for counts in play.recap.values()} == {1}
    assert play.out.count("Domain not found") >= 2


def test_the_gateway_can_be_disabled(fleet: Fleet, installed: Play) -> None:
    """A fleet without the gateway is one variable away, and back."""
    assert 0 not in fleet.play(papr_hook_gateway=False, papr_hook_adopt=False).changed()
    assert not any(is_gated(host) for host in fleet.hosts.values())
    assert fleet.play(papr_hook_adopt=False).changed() == {1}
    assert all(is_gated(host) for host in fleet.hosts.values())
