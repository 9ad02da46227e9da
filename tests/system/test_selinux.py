"""The SELinux policy, loaded into Debian's by install.sh. Nothing enforces it: the kernel that runs the tests has none.

Types that only Fedora's policy has come from tests/helpers/fedora_names.cil.
"""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

from tests.harness.booted_host import CHECKOUT, BootedHost, started
from tests.helpers.cli import one_line
from tests.helpers.installation import (
    ENFORCING,
    HOOK,
    INSTALL,
    OURS_IN_DIR,
    answers,
    assert_judged,
    install,
    refused,
    snapshot,
)
from tests.helpers.packages import build, is_gated
from tests.helpers.paths import PROJECT

POLICY = "/etc/selinux/default/policy/policy.33"
MODULE = f"{CHECKOUT}/selinux/papr-hook.cil"
GUESTS = {"svirt_t", "virt_domain"}


ALLOW = re.compile(r"allow (\S+) (\S+):(\w+) (?:\{ (.*) \}|(\w+));")
ATTRIBUTE = re.compile(r"^ *attribute (\w+);\n((?:\t\w+\n)*)", re.MULTILINE)


@dataclass(frozen=True)
class Policy:
    """The rules of a compiled policy.

    Attributes:
        rules: What is allowed, and the transitions, as sesearch prints them.
        attributes: The attributes of each type.
    """

    rules: frozenset[str]
    attributes: Mapping[str, frozenset[str]]

    def allows(self, source: str, target: str, kind: str, permission: str) -> bool:
        """Tell whether a type may do something to another one."""
        sources = {source, *self.attributes[source]}
        targets = {target, *self.attributes[target]}
        return any(
            name in sources and aim in targets and permission in permissions
            for name, aim, permissions in self._allowed.get(kind, ())
        )

    def sources(self, target: str, kind: str, permission: str) -> set[str]:
        """Return the types and attributes that a rule about a type itself allows something."""
        return {name for name, aim, permissions in self._allowed[kind] if aim == target and permission in permissions}

    @cached_property
    def _allowed(self) -> dict[str, list[tuple[str, str, frozenset[str]]]]:
        """Return the rules that allow something, by the class of the target."""
        allowed: dict[str, list[tuple[str, str, frozenset[str]]]] = {}
        for found in filter(None, map(ALLOW.match, self.rules)):
            permissions = frozenset((found[4] or found[5]).split())
            allowed.setdefault(found[3], []).append((found[1], found[2], permissions))
        return allowed


def read(program: str, *argv: str | Path) -> str:
    """Return what a program prints about a policy."""
    return subprocess.run([program, *argv], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def plain(roots: dict[str, Path]) -> Iterator[BootedHost]:
    """Boot a host with Debian's policy and Fedora's names."""
    with started(roots, "bookworm", "selinux") as host:
        host.sh("apt-get -qq update")
        apt = "DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install"
        host.sh(f"{apt} rpm policycoreutils selinux-policy-default python3-lxml python3-libvirt python3-rich")
        host.write("/srv/fedora_names.cil", (PROJECT / "tests/helpers/fedora_names.cil").read_text())
        host.run("semodule", "-i", "/srv/fedora_names.cil")
        yield host


@pytest.fixture(scope="module")
def before(plain: BootedHost, tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """Return the policy without papr-hook's module."""
    return read_policy(plain, tmp_path_factory.mktemp("before"))


@pytest.fixture(scope="module")
def labelled(plain: BootedHost, before: Policy) -> BootedHost:
    """Install papr-hook on that host."""
    install(plain)
    return plain


@pytest.fixture(scope="module")
def after(labelled: BootedHost, tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """Return the policy with papr-hook's module."""
    return read_policy(labelled, tmp_path_factory.mktemp("after"))


def read_policy(host: BootedHost, directory: Path) -> Policy:
    """Read the policy of a host. The directory is for a copy of it."""
    file = directory / "policy.33"
    file.write_bytes(host.outside(POLICY).read_bytes())
    attributes = defaultdict[str, set[str]](set)
    for name, types in ATTRIBUTE.findall(read("seinfo", file, "-a", "-x")):
        for one in types.split():
            attributes[one].add(name)
    rules = frozenset(line for kind in ("-A", "-T") for line in read("sesearch", kind, file).splitlines())
    return Policy(rules, defaultdict(frozenset, {one: frozenset(names) for one, names in attributes.items()}))


def modules(host: BootedHost) -> list[str]:
    """Return the names of papr-hook's modules that are loaded."""
    return [name for name in host.run("semodule", "-l").stdout.split() if name.startswith("papr-hook")]


def test_an_enforcing_host_is_asked_first(plain: BootedHost, before: Policy) -> None:
    """install.sh refuses where SELinux is enforcing, and offers to leave the gateway out."""
    said = refused(plain, ENFORCING)
    assert "untested: --hook-only leaves libvirt's socket alone" in said
    for option in ("--hook-only", "--enforcing"):
        plain.write("/srv/enforcing", f"{ENFORCING}\nexec {INSTALL} --dry-run {option}\n")
        done = plain.run("unshare", "-m", "sh", "-e", "/srv/enforcing")
        assert "policy module papr-hook would be loaded; papr-hook is untested where SELinux is" in done.stdout
    assert modules(plain) == []


def test_installing_loads_the_modules(labelled: BootedHost) -> None:
    """install.sh loads the modules; the gateway and the hook, which has a label in qemu.d alone, work beside them."""
    assert modules(labelled) == ["papr-hook", "papr-hook-permissive"]
    assert labelled.sh(f"test -x {OURS_IN_DIR} && ! test -e {HOOK}").returncode == 0
    assert answers(labelled)
    assert_judged(labelled)


@pytest.mark.parametrize(
    ("source", "target", "kind", "permission"),
    [
        ("init_t", "papr_hook_exec_t", "file", "execute"),
        ("init_t", "papr_hook_gateway_t", "process", "transition"),
        ("init_t", "papr_hook_gateway_t", "process2", "nnp_transition"),
        ("init_t", "papr_hook_gateway_t", "unix_stream_socket", "listen"),
        ("papr_hook_gateway_t", "papr_hook_exec_t", "file", "entrypoint"),
        *[
            (client, "papr_hook_gateway_t", "unix_stream_socket", "connectto")
            for client in ("unconfined_t", "virsh_t", "sysadm_t", "virtproxyd_t", "virt_dbus_t", "fenced_t")
        ],
        *[
            rule
            for daemon in ("virtd_t", "virtqemud_t")
            for rule in (
                ("papr_hook_gateway_t", daemon, "unix_stream_socket", "connectto"),
                ("papr_hook_qemu_t", daemon, "unix_stream_socket", "connectto"),
                (daemon, "papr_hook_gateway_t", "file", "read"),
                (daemon, "papr_hook_qemu_exec_t", "file", "execute"),
                (daemon, "papr_hook_qemu_t", "process", "transition"),
                ("papr_hook_qemu_t", daemon, "fifo_file", "write"),
            )
        ],
        *[
            ("papr_hook_gateway_t", socket, "sock_file", "write")
            for socket in ("virt_runtime_t", "virtqemud_var_run_t")
        ],
        ("papr_hook_qemu_t", "papr_hook_gateway_t", "unix_stream_socket", "connectto"),
        ("papr_hook_qemu_t", "papr_hook_qemu_exec_t", "file", "entrypoint"),
        ("papr_hook_qemu_t", "shell_exec_t", "file", "execute_no_trans"),
        ("policykit_t", "papr_hook_gateway_t", "file", "read"),
    ],
)
def test_what_is_allowed(after: Policy, source: str, target: str, kind: str, permission: str) -> None:
    """systemd starts the gateway, clients reach it, it reaches libvirt, and libvirt runs the hook."""
    assert after.allows(source, target, kind, permission)


@pytest.mark.parametrize(
    ("source", "target", "kind", "permission"),
    [
        ("svirt_t", "papr_hook_gateway_t", "unix_stream_socket", "connectto"),
        ("user_t", "papr_hook_gateway_t", "unix_stream_socket", "connectto"),
        ("papr_hook_gateway_t", "virt_etc_rw_t", "file", "write"),
        ("papr_hook_gateway_t", "shell_exec_t", "file", "execute"),
        ("papr_hook_gateway_t", "shadow_t", "file", "read"),
        ("papr_hook_qemu_t", "virt_etc_rw_t", "file", "write"),
        ("papr_hook_qemu_t", "virt_image_t", "file", "read"),
        ("papr_hook_qemu_t", "shadow_t", "file", "read"),
    ],
)
def test_what_is_not_allowed(after: Policy, source: str, target: str, kind: str, permission: str) -> None:
    """Guests do not reach the gateway. Neither domain writes what libvirt keeps, or reads images and passwords."""
    assert not after.allows(source, target, kind, permission)


def test_each_client_of_libvirt_reaches_the_gateway(after: Policy) -> None:
    """What may connect to libvirt's daemon, but for its guests, may connect to the gateway."""
    clients = after.sources("virtd_t", "unix_stream_socket", "connectto")
    assert {"virsh_t", "sysadm_t"} <= clients
    kept_out = {
        client
        for client in clients - {"virtd_t", "papr_hook_libvirt", "papr_hook_domain"}
        if not after.allows(client, "papr_hook_gateway_t", "unix_stream_socket", "connectto")
    }
    assert kept_out == GUESTS


def test_nothing_else_changes(before: Policy, after: Policy) -> None:
    """No rule is gone, and each new one is about a type of papr-hook's."""
    assert before.rules <= after.rules
    added = after.rules - before.rules
    assert len(added) > 50
    assert [rule for rule in added if not re.search(r"\bpapr_hook_\w+", rule)] == []


def test_transitions(after: Policy) -> None:
    """Only systemd starts the gateway, only libvirt's daemons start the hook."""
    ours = {rule for rule in after.rules if rule.startswith("type_transition") and ":process papr_hook_" in rule}
    assert ours == {
        "type_transition init_t papr_hook_exec_t:process papr_hook_gateway_t;",
        "type_transition virtd_t papr_hook_qemu_exec_t:process papr_hook_qemu_t;",
        "type_transition virtqemud_t papr_hook_qemu_exec_t:process papr_hook_qemu_t;",
    }


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("/usr/bin/papr-hook", "papr_hook_exec_t"),
        (OURS_IN_DIR, "papr_hook_qemu_exec_t"),
        ("/run/libvirt/papr-hook/attach.lock", "papr_hook_run_t"),
        ("/etc/libvirt/hooks/qemu.d/50-other", "virt_etc_rw_t"),
        (HOOK, "virt_etc_rw_t"),
    ],
)
def test_labels(labelled: BootedHost, path: str, label: str) -> None:
    """The policy labels papr-hook's files, and no hook of another program."""
    assert labelled.run("matchpathcon", "-n", path).stdout == f"system_u:object_r:{label}:s0\n"


def permissive(host: BootedHost, directory: Path) -> list[str]:
    """Return the domains of a host's policy that are permissive."""
    file = directory / "policy.33"
    file.write_bytes(host.outside(POLICY).read_bytes())
    return re.findall(r"\bpapr_hook_\w+", read("seinfo", file, "--permissive"))


def test_an_administrator_enforces_the_policy(labelled: BootedHost, tmp_path: Path) -> None:
    """The domains are permissive until an administrator disables that, which an upgrade keeps."""
    assert permissive(labelled, tmp_path) == ["papr_hook_gateway_t", "papr_hook_qemu_t"]
    labelled.run("semodule", "-d", "papr-hook-permissive")
    install(labelled)
    assert permissive(labelled, tmp_path) == []
    assert modules(labelled) == ["papr-hook"]


def test_a_policy_that_does_not_load_changes_nothing(labelled: BootedHost) -> None:
    """If semodule fails, the files and the module of the installed version stay."""
    labelled.sh(f"echo '(allow no_such_t self (file (read)))' >>{MODULE}")
    before, loaded = snapshot(labelled), modules(labelled)
    done = labelled.run(INSTALL, check=False)
    assert done.returncode == 1
    assert one_line(done.stderr)
    assert re.fullmatch("install.sh: 'semodule .*' failed: .*; nothing has changed\n", done.stderr)
    assert snapshot(labelled) == before
    assert modules(labelled) == loaded
    assert answers(labelled)


def test_uninstalling_removes_the_modules(labelled: BootedHost, before: Policy, tmp_path: Path) -> None:
    """The policy is as it was."""
    labelled.copy_project()
    install(labelled, "--uninstall")
    assert modules(labelled) == []
    assert read_policy(labelled, tmp_path).rules == before.rules
    assert labelled.sh("semodule -lfull | grep papr-hook", check=False).stdout == ""


def test_the_rpm_package_loads_and_removes_the_modules(plain: BootedHost, before: Policy, tmp_path: Path) -> None:
    """The package's scriptlets do what install.sh does."""
    package = build("build-rpm", tmp_path)
    plain.run("sh", "-c", "cat >/srv/papr-hook.rpm", input=package.read_bytes())
    plain.sh("rpm --nodeps --force-debian -i /srv/papr-hook.rpm")
    assert "papr-hook" in modules(plain)
    assert is_gated(plain)
    plain.sh("rpm --nodeps --force-debian -e papr-hook")
    assert modules(plain) == []
    assert answers(plain)
