"""papr_hook.gateway.setup.plan and .apply: what is planned, what is done, and what is left of a plan that fails."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from papr_hook.errors import SetupError
from papr_hook.gateway.setup.apply import InterruptedRunError, apply, interruptible, locked
from papr_hook.gateway.setup.host import DAEMONS, LIBVIRTD, Daemon, Host
from papr_hook.gateway.setup.plan import Command, Plan, is_enabled, plan_disable, plan_enable
from papr_hook.gateway.setup.transaction import WriteFile
from tests.helpers.fake_systemd import FakeHost
from tests.helpers.paths import PROJECT

BOTH = pytest.mark.parametrize("daemon", DAEMONS, ids=lambda daemon: daemon.name)


def enabled(tmp_path: Path, daemon: Daemon = LIBVIRTD, sockets_by: str = "socket") -> FakeHost:
    """Return a host with the gateway."""
    host = FakeHost(tmp_path, daemon, sockets_by=sockets_by)
    apply(plan_enable(host, PROJECT), host)
    host.calls.clear()
    return host


@BOTH
def test_enable(tmp_path: Path, daemon: Daemon) -> None:
    """The daemon's own socket moves, the daemon is restarted once, and the gateway has its drop-ins."""
    host = FakeHost(tmp_path, daemon)
    plan = plan_enable(host, PROJECT)
    apply(plan, host)
    assert host.listens(daemon.upstream)
    assert [restart.daemon for restart in plan.restarts] == [daemon]
    assert host.calls == [
        "systemctl daemon-reload",
        "systemctl reset-failed papr-hook-*",
        f"systemctl stop {daemon.name}.socket",
        f"systemctl reset-failed {daemon.name}.socket",
        f"systemctl start {daemon.name}.socket",
    ]
    for path, to in host.files().items():
        if path.startswith("/etc/systemd"):
            assert Path(to).read_text().startswith("#"), f"{path} links to a drop-in"
    assert is_enabled(host)


@BOTH
@pytest.mark.parametrize("sockets_by", ["socket", "service"])
def test_disable_restores_what_was_there(tmp_path: Path, daemon: Daemon, sockets_by: str) -> None:
    """Enabling and disabling leave the files as they were."""
    host = FakeHost(tmp_path, daemon, sockets_by=sockets_by)
    before = host.files()
    apply(plan_enable(host, PROJECT), host)
    assert host.files() != before
    apply(plan_disable(host, PROJECT), host)
    assert host.files() == before
    assert host.listens(daemon.socket)
    assert list(tmp_path.glob("etc/**/*.d")) == []


def test_enable_twice_restarts_the_gateway_only(tmp_path: Path) -> None:
    """A second run keeps libvirt's clients connected."""
    host = enabled(tmp_path)
    before = host.files()
    apply(plan_enable(host, PROJECT), host)
    assert host.files() == before
    assert host.calls[2:] == ["systemctl restart papr-hook-gateway@libvirtd.service"]


def test_changed_socket_unit_is_restarted(tmp_path: Path) -> None:
    """An upgrade with another socket unit restarts that, and not libvirt's."""
    host = enabled(tmp_path)
    host.properties["papr-hook-libvirtd.socket", "NeedDaemonReload"] = "yes"
    apply(plan_enable(host, PROJECT), host)
    assert "systemctl restart papr-hook-libvirtd.socket" in host.calls
    assert "systemctl stop libvirtd.socket" not in host.calls


def test_disable_twice_does_nothing(tmp_path: Path) -> None:
    """A host without the gateway is left alone."""
    host = FakeHost(tmp_path, LIBVIRTD)
    assert plan_disable(host, PROJECT) == Plan()


def test_own_sockets_move_by_setting(tmp_path: Path) -> None:
    """A daemon that makes its own sockets gets unix_sock_dir and is restarted."""
    host = enabled(tmp_path, sockets_by="service")
    assert host.path(LIBVIRTD.conf).read_text().splitlines() == [
        "# settings",
        "unix_sock_dir = \"/run/libvirt/upstream\" # set by 'papr-hook gateway enable'",
    ]
    assert "/etc/systemd/system/libvirtd.socket.d/papr-hook.conf" not in host.files()
    assert host.files()["/etc/systemd/system/libvirtd.service.d/papr-hook.conf"].endswith(
        "own-sockets/libvirtd.service.d/papr-hook.conf"
    )


def test_linked_conf_stays_a_link(tmp_path: Path) -> None:
    """What libvirtd.conf leads to is edited, and keeps its mode."""
    host = FakeHost(tmp_path, LIBVIRTD, sockets_by="service")
    real = tmp_path / "srv" / "libvirtd.conf"
    real.parent.mkdir()
    real.write_text("# shared\n")
    real.chmod(0o640)
    host.path(LIBVIRTD.conf).unlink()
    host.path(LIBVIRTD.conf).symlink_to("/srv/libvirtd.conf")
    apply(plan_enable(host, PROJECT), host)
    assert os.readlink(host.path(LIBVIRTD.conf)) == "/srv/libvirtd.conf"
    assert "unix_sock_dir" in real.read_text()
    assert real.stat().st_mode & 0o7777 == 0o640
    apply(plan_disable(host, PROJECT), host)
    assert real.read_text() == "# shared\n"


def test_dependents_are_restarted(tmp_path: Path) -> None:
    """Units that systemd stops with libvirt start again with it, those behind them too."""
    host = FakeHost(tmp_path, LIBVIRTD)
    host.active |= {"libvirtd.service", "manager.service", "agent.service"}
    host.properties["libvirtd.service", "RequiredBy"] = "manager.service papr-hook-libvirtd.socket"
    host.properties["manager.service", "BoundBy"] = "agent.service idle.service"
    plan = plan_enable(host, PROJECT)
    assert plan.restarts[0].dependents == ("agent.service", "manager.service")
    apply(plan, host)
    assert "systemctl start libvirtd.service libvirtd.socket agent.service manager.service" in host.calls


@pytest.mark.parametrize("failing", ["systemctl daemon-reload", "systemctl stop libvirtd", "systemctl start libvirtd"])
def test_failure_is_rolled_back(tmp_path: Path, failing: str) -> None:
    """Whichever command fails, files and services are as before, and the message says so."""
    host = FakeHost(tmp_path, LIBVIRTD)
    before, active = host.files(), set(host.active)
    host.fails = [failing]
    plan = plan_enable(host, PROJECT)
    with pytest.raises(SetupError, match=r"(Job failed\.|libvirtd does not start: .*); nothing has changed$"):
        apply(plan, host)
    assert host.files() == before
    host.fails = []
    apply(Plan(commands=plan.restore), host)
    assert host.active == active
    assert host.listens(LIBVIRTD.socket)


def test_libvirt_that_does_not_answer_is_rolled_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that started and serves nobody is a failure, too."""
    host = FakeHost(tmp_path, LIBVIRTD)
    before = host.files()
    monkeypatch.setattr(host, "answers", lambda path: False)
    with pytest.raises(SetupError, match="libvirtd does not answer at /run/libvirt/libvirt-sock"):
        apply(plan_enable(host, PROJECT), host)
    assert host.files() == before
    assert host.listens(LIBVIRTD.socket)
    assert host.calls[-1] == "systemctl start libvirtd.socket"


def test_failed_disable_leaves_the_gateway(tmp_path: Path) -> None:
    """A roll-back of disabling enables the gateway again."""
    host = enabled(tmp_path)
    before = host.files()
    plan = plan_disable(host, PROJECT)
    host.fails = ["systemctl stop libvirtd"]
    with pytest.raises(SetupError):
        apply(plan, host)
    assert host.files() == before


@pytest.mark.parametrize(
    ("listen", "says"),
    [("/run/other (Stream)", "libvirtd.socket listens at /run/other"), ("", "libvirtd.socket listens at nothing")],
)
def test_unusual_socket_is_refused(tmp_path: Path, listen: str, says: str) -> None:
    """A socket that the administrator moved is left alone."""
    host = FakeHost(tmp_path, LIBVIRTD)
    host.properties["libvirtd.socket", "Listen"] = listen
    with pytest.raises(SetupError, match=says):
        plan_enable(host, PROJECT)


def test_unix_sock_dir_of_the_administrator_is_refused(tmp_path: Path) -> None:
    """A unix_sock_dir that is set already is left alone."""
    host = FakeHost(tmp_path, LIBVIRTD, sockets_by="service")
    host.path(LIBVIRTD.conf).write_text('unix_sock_dir = "/run/elsewhere"\n')
    with pytest.raises(SetupError, match=r"libvirtd\.conf already sets unix_sock_dir"):
        plan_enable(host, PROJECT)


def test_nothing_starts_a_gateway(tmp_path: Path) -> None:
    """A host without systemd and without scripts is refused."""
    with pytest.raises(SetupError, match="neither systemd nor"):
        plan_enable(Host(tmp_path), PROJECT)


def test_image_is_enabled_for_its_first_boot(tmp_path: Path) -> None:
    """Without a running systemd only links are made."""
    (tmp_path / "usr/lib/systemd/system").mkdir(parents=True)
    (tmp_path / "usr/lib/systemd/system/libvirtd.socket").touch()
    plan = plan_enable(Host(tmp_path), PROJECT)
    assert plan.commands == ()
    apply(plan, Host(tmp_path))
    assert (tmp_path / "etc/systemd/system/libvirtd.socket.d/papr-hook.conf").is_symlink()


def test_sysvinit(tmp_path: Path) -> None:
    """Scripts are written, the setting is made, and the gateway starts after libvirtd."""
    script = tmp_path / "etc/init.d/libvirtd"
    script.parent.mkdir(parents=True)
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    plan = plan_enable(Host(tmp_path), PROJECT)
    assert [change.path for change in plan.changes] == [
        "/etc/init.d/papr-hook-upstream",
        "/etc/init.d/papr-hook-gateway",
        LIBVIRTD.conf,
    ]
    assert [command.argv[-2:] for command in plan.commands][-2:] == [
        ("/etc/init.d/papr-hook-upstream", "start"),
        ("/etc/init.d/papr-hook-gateway", "start"),
    ]


def test_dry_run_names_every_step(tmp_path: Path) -> None:
    """The description has the files, the commands and the check, and changes nothing."""
    host = FakeHost(tmp_path, LIBVIRTD, sockets_by="service")
    before = host.files()
    lines = list(plan_enable(host, PROJECT).describe(host))
    assert "edit /etc/libvirt/libvirtd.conf" in lines
    assert "run systemctl start libvirtd.service" in lines
    assert lines[-1] == "check that libvirtd answers at /run/libvirt/libvirt-sock"
    assert (host.files(), host.calls) == (before, [])


def test_signal_while_staging_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is ended early removes what it staged."""
    host = FakeHost(tmp_path, LIBVIRTD)
    before = host.files()

    def stage(change: WriteFile, new: Path, target: Path) -> None:
        new.touch()
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(WriteFile, "stage", stage)
    with pytest.raises(InterruptedRunError), interruptible():
        apply(Plan(changes=(WriteFile("/etc/new/file", b""),)), host)
    assert host.files() == before
    assert not (tmp_path / "etc/new").exists()


def test_signal_while_services_restart_is_ignored(tmp_path: Path) -> None:
    """A run that has begun to change services finishes."""
    host = FakeHost(tmp_path, LIBVIRTD)
    run = host.run

    def interrupt(argv: object) -> object:
        os.kill(os.getpid(), signal.SIGINT)
        return run(argv)  # type: ignore[arg-type]

    host.run = interrupt  # type: ignore[assignment]
    with interruptible():
        apply(Plan(changes=(WriteFile("/etc/new", b"x"),), commands=(Command(("systemctl", "start", "x")),)), host)
    assert (tmp_path / "etc/new").read_bytes() == b"x"


def test_one_run_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second run waits for the first, and gives up in the end."""
    monkeypatch.setattr("papr_hook.gateway.setup.apply.LOCK_SECONDS", 0.1)
    again = locked(tmp_path / "lock")
    with locked(tmp_path / "lock"), pytest.raises(SetupError, match="another installation still runs"), again:
        pass
    with locked(tmp_path / "lock"), locked(tmp_path):
        pass
