"""A place for a device that is attached: which vPHB, and what becomes of the call that attaches it."""

from __future__ import annotations

import dataclasses
from collections import deque
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from papr_hook import hotplug, pipeline
from papr_hook.config import AttachWithoutSpare, Config, IncompletePe
from papr_hook.errors import InputError, PaprHookError
from papr_hook.gateway import protocol
from papr_hook.gateway.protocol import PacketWithFds
from papr_hook.gateway.session import ATTACH_LOCK_TIMEOUT, Session
from papr_hook.layout import check
from tests.helpers.cli import papr_hook
from tests.helpers.sysfs import GROUPS, write_sysfs

NIC = "<interface type='user'><mac address='52:54:00:00:00:{:02x}'/><model type='virtio'/>{}</interface>"
QUIET = "<controller type='usb' index='0' model='none'/><memballoon model='none'/>"
UUID = bytes(range(16))
DOM = protocol.string(b"g") + UUID + protocol.uint(1)


def at(bus: int, slot: int = 1, function: int = 0, more: str = "") -> str:
    """A PCI address."""
    return f"<address type='pci' domain='0' bus='{bus:#x}' slot='{slot:#x}' function='{function:#x}'{more}/>"


def nic(number: int, address: str = "") -> str:
    """A NIC."""
    return NIC.format(number, address)


def hostdev(source: str, address: str = "") -> str:
    """A host device."""
    domain, bus, rest = source.split(":")
    slot, function = rest.split(".")
    return (
        "<hostdev mode='subsystem' type='pci' managed='yes'><source><address "
        f"domain='0x{domain}' bus='0x{bus}' slot='0x{slot}' function='0x{function}'/></source>{address}</hostdev>"
    )


def guest(devices: str = "", phbs: int = 5, running: bool = True, extra: str = "") -> bytes:
    """A definition with some vPHBs; that of a running guest has an id."""
    roots = "".join(
        f"<controller type='pci' index='{n}' model='pci-root'><target index='{n}'/></controller>" for n in range(phbs)
    )
    return (
        f"<domain type='qemu'{' id=' + repr('7') if running else ''}><name>g</name><memory>1</memory>"
        f"<os><type arch='ppc64' machine='pseries'>hvm</type></os>{extra}"
        f"<devices>{roots}{devices}{QUIET}</devices></domain>"
    ).encode()


def placed(device: str, *definitions: bytes, settings: Config | None = None) -> tuple[int, int, int]:
    """The bus, slot and function that a device gets."""
    data = hotplug.place(device.encode(), definitions, settings or Config())
    address = etree.fromstring(data).find("address")
    assert address is not None
    assert (address.get("type"), address.get("domain")) == ("pci", "0x0000")
    return tuple(int(address.get(name, ""), 16) for name in ("bus", "slot", "function"))  # type: ignore[return-value]


@pytest.fixture
def settings(tmp_path: Path) -> Config:
    """The policy of a host with IOMMU groups."""
    return Config(sysfs=write_sysfs(tmp_path, GROUPS))


def test_lowest_empty_vphb_and_0_last() -> None:
    """A device goes to the lowest empty vPHB; 0 is filled last."""
    assert placed(nic(9), guest()) == (1, 1, 0)
    assert placed(nic(9), guest(nic(1, at(1)) + nic(2, at(3)))) == (2, 1, 0)
    assert placed(nic(9), guest("".join(nic(n, at(n)) for n in range(1, 5)))) == (0, 1, 0)


def test_empty_in_every_definition() -> None:
    """What is attached to the running guest and to its definition has one address in both."""
    live, config = guest(nic(1, at(1))), guest(nic(2, at(2)), running=False)
    assert placed(nic(9), live, config) == (3, 1, 0)


def test_definitions_for_the_next_start_grow() -> None:
    """libvirt adds a pci-root to what is not running; never beyond 31, and not to what runs."""
    full = "".join(nic(n, at(n)) for n in range(1, 5))
    assert placed(nic(9), guest(full, running=False)) == (5, 1, 0)
    assert placed(nic(9), guest("", 9), guest(full, running=False)) == (5, 1, 0)
    full31 = "".join(nic(n, at(n)) for n in range(31))
    with pytest.raises(hotplug.NoRoomError, match="no empty vPHB"):
        placed(nic(99), guest(full31, 31, running=False))


def test_no_room() -> None:
    """A guest that complies and has no empty vPHB left refuses, and says what to do."""
    with pytest.raises(hotplug.NoRoomError) as caught:
        placed(nic(9), guest("".join(nic(n, at(n)) for n in range(5))))
    assert "<interface> 52:54:00:00:00:09" in str(caught.value)
    assert "next start" in str(caught.value)


def test_sharing_if_the_host_wants_that(settings: Config) -> None:
    """attach_without_spare = share: an emulated device joins the least crowded vPHB of emulated ones."""
    share = dataclasses.replace(settings, attach_without_spare=AttachWithoutSpare.SHARE)
    full = nic(0, at(0)) + hostdev("0002:01:00.0", at(1)) + nic(2, at(2)) + nic(3, at(3))
    assert placed(nic(9), guest(full, 4), settings=share) == (2, 2, 0)
    with pytest.raises(hotplug.NoRoomError):
        placed(hostdev("0002:01:00.1"), guest(full, 4), settings=share)


def test_endpoints_stay_together(settings: Config) -> None:
    """A device of an IOMMU group that is there joins it; one of another group does not."""
    there = guest(nic(1, at(1)) + hostdev("0001:01:00.0", at(3)))
    assert placed(hostdev("0001:01:00.1"), there, settings=settings) == (3, 2, 0)
    assert placed(hostdev("0002:01:00.0"), there, settings=settings) == (2, 1, 0)
    two = guest(hostdev("0001:01:00.0", at(3)) + hostdev("0001:01:00.1", at(3, 2)))
    assert placed(hostdev("0001:01:00.2"), two, settings=settings) == (3, 3, 0)


def test_endpoints_stay_together_in_both_definitions(settings: Config) -> None:
    """A group that only one of the definitions has decides for both, where the other one is empty there."""
    live, config = guest(hostdev("0001:01:00.0", at(3))), guest(running=False)
    assert placed(hostdev("0001:01:00.1"), live, config, settings=settings) == (3, 2, 0)
    occupied = guest(nic(1, at(3)), running=False)
    with pytest.raises(hotplug.NoRoomError, match="no vPHB to themselves"):
        placed(hostdev("0001:01:00.1"), live, occupied, settings=settings)


def test_what_an_endpoint_lacks_is_named(settings: Config) -> None:
    """A host device comes alone; the rest of its group is named until it is there, and nothing is refused for it."""
    first, second, third = (hostdev(f"0001:01:00.{function}").encode() for function in (0, 1, 2))
    strict = dataclasses.replace(settings, incomplete_pe=IncompletePe.REFUSE)
    said = hotplug.missing(first, [guest()], strict)
    assert said is not None
    assert "0001:01:00.1" in said and "0001:01:00.2" in said
    assert placed(first.decode(), guest(), settings=strict) == (1, 1, 0)
    there = guest("".join(hostdev(f"0001:01:00.{n}", at(1, n + 1)) for n in (0, 1)))
    assert hotplug.missing(third, [there], settings) is None
    assert hotplug.missing(second, [guest()], Config(sysfs=settings.sysfs / "nowhere")) is None
    assert hotplug.missing(nic(9).encode(), [guest()], settings) is None


def test_usb_2_sets_stay_together() -> None:
    """A companion goes to the slot of its set, at the function that it has."""
    ehci = f"<controller type='usb' index='1' model='ich9-ehci1'>{at(2, 1, 7)}</controller>"
    device = "<controller type='usb' index='1' model='ich9-uhci1'/>"
    assert placed(device, guest(ehci)) == (2, 1, 0)
    assert b"multifunction='on'" in hotplug.place(device.encode(), [guest(ehci)], Config())


@pytest.mark.parametrize(
    "device",
    [
        nic(9, at(2)),
        "<disk type='file' device='disk'><target dev='sdb' bus='scsi'/></disk>",
        "<hostdev mode='subsystem' type='usb'/>",
        "<interface type='user'><address type='spapr-vio'/></interface>",
        "<controller type='pci' model='pci-bridge'/>",
    ],
)
def test_left_alone(device: str) -> None:
    """What has an address, or does not sit on PCI, goes on in its very bytes."""
    assert not hotplug.may_need_place(device.encode()) or "bus='0x2'" in device
    assert hotplug.place(device.encode(), [guest()], Config()) == device.encode()


@pytest.mark.parametrize(
    "definition",
    [
        guest(extra="<metadata><p:layout xmlns:p='urn:papr-hook:domain:1' mode='keep'/></metadata>"),
        guest().replace(b"ppc64", b"x86_64").replace(b"pseries", b"q35"),
        b"<domain type='qemu'/>",
    ],
)
def test_guests_that_are_not_laid_out(definition: bytes) -> None:
    """Another machine's guest, and one that a person keeps, get the device as it is."""
    assert hotplug.place(nic(9).encode(), [guest(), definition], Config()) == nic(9).encode()


def test_a_guest_from_before() -> None:
    """One that runs and was never laid out still gets the device, from libvirt: nothing is refused."""
    crowded = guest(nic(1, at(0, 1)) + nic(2, at(0, 2)), 1)
    with pytest.raises(PaprHookError, match="not laid out") as caught:
        placed(nic(9), crowded)
    assert not isinstance(caught.value, hotplug.NoRoomError)


def test_reserved_vphbs_stay_empty() -> None:
    """A vPHB with a NUMA cell of its own, or with something of the qemu:commandline's, is nobody's spare."""
    bound = guest().replace(b"<target index='1'/>", b"<target index='1'><node>0</node></target>")
    bound = bound.replace(b"<os>", b"<cpu><numa><cell id='0' cpus='0' memory='1'/></numa></cpu><os>")
    assert placed(nic(9), bound) == (2, 1, 0)
    commandline = (
        "<c:commandline xmlns:c='http://libvirt.org/schemas/domain/qemu/1.0'><c:arg value='-device'/>"
        "<c:arg value='virtio-rng-pci,bus=pci.1.0'/></c:commandline>"
    )
    assert placed(nic(9), guest(extra=commandline)) == (2, 1, 0)


def test_an_empty_address_is_none() -> None:
    """libvirt takes 0000:00:00 as no address; the one that is there is filled in."""
    data = hotplug.place(nic(9, "<address type='pci'/>").encode(), [guest()], Config())
    assert data.count(b"<address") == 1
    assert b"bus='0x01'" in data


def test_only_the_address_is_added() -> None:
    """What else the XML says stays as it is written."""
    device = "<?xml version='1.0'?>\n<interface type='user'>\n  <!-- mine -->\n  <mtu size='9'/>\n</interface>\n"
    data = hotplug.place(device.encode(), [guest()], Config()).decode()
    added = "  <address type='pci' domain='0x0000' bus='0x01' slot='0x01' function='0x0'/>\n"
    assert data == device.replace("</interface>", f"{added}</interface>")


@pytest.mark.parametrize("text", [b"", b"<interface", b"<a/><b/>", b"\xff\xfe", b"<interface>\0</interface>"])
def test_no_xml(text: bytes) -> None:
    """What is no XML is an error of the input."""
    with pytest.raises(InputError):
        hotplug.may_need_place(text)


@given(st.lists(st.integers(1, 11), unique=True), st.lists(st.integers(1, 11), unique=True))
def test_what_was_attached_complies(live: list[int], config: list[int]) -> None:
    """Whatever is where, a guest that complied does so with the device in it, in every definition."""
    definitions = [
        guest("".join(nic(n, at(n)) for n in there), 12, running) for there, running in ((live, True), (config, False))
    ]
    data = hotplug.place(nic(99).encode(), definitions, Config())
    assert data == hotplug.place(data, definitions, Config())
    for definition in definitions:
        after = definition.replace(b"</devices>", data + b"</devices>")
        assert check.complies(pipeline.analyze(after, Config()).violations())


class Guests:
    """Reservations in one place, for several sessions."""

    def __init__(self) -> None:
        self.taken: set[bytes] = set()

    def acquire(self, uuid: bytes) -> bool:
        """LockRequest a guest."""
        if uuid in self.taken:
            return False
        self.taken.add(uuid)
        return True

    def release(self, uuid: bytes) -> None:
        """Give a guest back."""
        self.taken.discard(uuid)


class Talk:
    """A session, with a clock that is set by hand and a journal that is kept."""

    def __init__(self, guests: Guests) -> None:
        self.now = 0.0
        self.journal: list[str] = []
        self.session = Session(Config, lambda _, text: self.journal.append(text), guests, lambda: self.now)

    def attach(self, device: str, serial: int = 5, flags: int = 1) -> protocol.Packet:
        """Have a client attach a device that may read the guest."""
        call = self.call(device, serial, flags)
        question = self.session.to_daemon.pop().packet
        assert question.procedure == 14
        self.answer(question, protocol.string(b"<domain/>"))
        return call

    def call(self, device: str, serial: int = 5, flags: int = 1) -> protocol.Packet:
        """Have the client call for an attach."""
        payload = DOM + protocol.string(device.encode()) + protocol.uint(flags)
        call = protocol.build_packet(160, protocol.Type.CALL, serial, 0, payload)
        self.session.from_client(PacketWithFds(call))
        return call

    def sent(self) -> list[protocol.Packet]:
        """What was sent to libvirt since the last look."""
        return drained(self.session.to_daemon)

    def got(self) -> list[protocol.Packet]:
        """What the client got since the last look."""
        return drained(self.session.to_client)

    def answer(self, call: protocol.Packet, payload: bytes = b"", status: int = 0) -> None:
        """Have libvirt answer a call."""
        reply = protocol.build_packet(call.procedure, protocol.Type.REPLY, call.serial, status, payload)
        self.session.from_daemon(PacketWithFds(reply))


def drained(queue: deque[PacketWithFds]) -> list[protocol.Packet]:
    """The packets of a queue, which is empty then."""
    found = [item.packet for item in queue]
    queue.clear()
    return found


def device_of(call: protocol.Packet) -> bytes:
    """The device that a call attaches."""
    reader = protocol.Reader(call.payload)
    reader.domain()
    return reader.string()


def test_one_question_then_the_call() -> None:
    """The client sees neither the question nor its answer, only the reply to its own call."""
    guests = Guests()
    talk = Talk(guests)
    call = talk.attach(nic(9))
    (question,) = talk.sent()
    assert (question.procedure, question.payload) == (14, DOM + protocol.uint(0))
    assert question.serial >= 0x80000000
    talk.answer(question, protocol.string(guest()))
    (forwarded,) = talk.sent()
    assert (forwarded.serial, forwarded.procedure) == (call.serial, 160)
    assert b"bus='0x01'" in device_of(forwarded)
    assert forwarded.payload.endswith(protocol.uint(1))
    assert guests.taken == {UUID}
    talk.answer(forwarded)
    assert [packet.serial for packet in talk.got()] == [5]
    assert guests.taken == set()


def test_two_definitions_are_asked_for() -> None:
    """LIVE and CONFIG together ask for both definitions; CONFIG for the one of the next start."""
    talk = Talk(Guests())
    talk.attach(nic(9), flags=3)
    (first,) = talk.sent()
    talk.answer(first, protocol.string(guest()))
    (second,) = talk.sent()
    assert [first.payload[-4:], second.payload[-4:]] == [protocol.uint(0), protocol.uint(2)]
    talk.answer(second, protocol.string(guest(nic(1, at(1)), running=False)))
    assert b"bus='0x02'" in device_of(talk.sent()[0])


def test_two_clients_at_once() -> None:
    """The second attach waits until the first one was answered, and then sees what that one did."""
    guests = Guests()
    first, second = Talk(guests), Talk(guests)
    one = first.attach(nic(1))
    (question,) = first.sent()
    second.attach(nic(2))
    assert second.sent() == []
    assert second.session.waits
    first.answer(question, protocol.string(guest()))
    assert first.sent()[0].serial == one.serial
    second.session.retry()
    assert second.sent() == []
    first.answer(one)
    second.session.retry()
    (question,) = second.sent()
    second.answer(question, protocol.string(guest(nic(1, at(1)))))
    assert b"bus='0x02'" in device_of(second.sent()[0])
    assert not second.session.waits


def test_one_client_at_once() -> None:
    """So it is with two calls of one client; everything else of it goes on meanwhile."""
    talk = Talk(Guests())
    one, two = talk.attach(nic(1), 5), talk.attach(nic(2), 6)
    keepalive = dataclasses.replace(protocol.build_packet(1, 2, 0, 0, b""), program=0x6B656570)
    talk.session.from_client(PacketWithFds(keepalive))
    question, passed = talk.sent()
    assert passed is keepalive
    talk.answer(question, protocol.string(guest()))
    assert [packet.serial for packet in talk.sent()] == [one.serial]
    talk.answer(one)
    talk.session.retry()
    assert talk.sent()[0].procedure == 14
    assert two.serial not in [packet.serial for packet in talk.got()]


def test_patience_ends() -> None:
    """An attach that waits too long goes on beside the other, and the journal says so."""
    guests = Guests()
    guests.acquire(UUID)
    talk = Talk(guests)
    talk.attach(nic(1))
    assert talk.sent() == []
    talk.now = ATTACH_LOCK_TIMEOUT + 1
    talk.session.retry()
    (question,) = talk.sent()
    talk.answer(question, protocol.string(guest()))
    (forwarded,) = talk.sent()
    assert b"bus='0x01'" in device_of(forwarded)
    talk.answer(forwarded)
    assert talk.journal == ["guest 'g': another attach to it does not end, and is not waited for"]
    assert guests.taken == {UUID}


@pytest.mark.parametrize("answers", [True, False])
def test_who_may_not_read_a_guest_does_not_reserve_it(answers: bool) -> None:
    """Nor does a client that libvirt has yet to answer."""
    guests = Guests()
    talk = Talk(guests)
    call = talk.call(nic(1))
    (question,) = talk.sent()
    if answers:
        talk.answer(question, protocol.error_reply(question, "authentication required").payload, 1)
        assert talk.sent() == [call]
    assert guests.taken == set()


def test_no_room_is_an_error_of_the_call() -> None:
    """The client gets an error in place of libvirt's reply, and the guest is free again."""
    guests = Guests()
    talk = Talk(guests)
    talk.attach(nic(9))
    full = guest("".join(nic(n, at(n)) for n in range(5)))
    talk.answer(talk.sent()[0], protocol.string(full))
    assert talk.sent() == []
    (reply,) = talk.got()
    assert (reply.serial, reply.procedure, reply.type, reply.status) == (5, 160, 1, 1)
    assert "papr-hook: guest 'g': no empty vPHB is left" in protocol.error_message(reply)
    assert guests.taken == set()


@pytest.mark.parametrize("answer", ["error", "noise", "nonsense"])
def test_questions_that_fail(answer: str) -> None:
    """Whatever libvirt says, the call itself goes on as it is."""
    guests = Guests()
    talk = Talk(guests)
    call = talk.attach(nic(9))
    (question,) = talk.sent()
    if answer == "error":
        talk.answer(question, protocol.error_reply(question, "no such guest").payload, 1)
    else:
        talk.answer(question, b"\1" if answer == "noise" else protocol.string(b"<no xml"))
    assert talk.sent() == [call]
    assert talk.got() == []
    assert "an attach goes to libvirt as it is: guest 'g': " in talk.journal[0]
    assert guests.taken == set()


@given(st.sampled_from([8, 9, 10, 11, 136, 160, 196, 309, 310, 350]), st.binary(max_size=120), st.integers(0, 6))
def test_calls_of_noise_go_on_as_they_are(procedure: int, noise: bytes, type_: int) -> None:
    """A payload that is not what the procedure says is libvirt's to judge."""
    talk = Talk(Guests())
    call = protocol.build_packet(procedure, type_, 3, 0, noise)
    talk.session.from_client(PacketWithFds(call))
    assert [packet for packet in talk.sent() if packet.serial == 3] in ([call], [])
    assert talk.got() == []


@given(st.binary(max_size=120), st.integers(0, 6), st.integers(0, 0xFFFFFFFF))
def test_what_libvirt_says_goes_on_as_it_is(noise: bytes, type_: int, serial: int) -> None:
    """Replies, events and streams that answer no question are the client's."""
    talk = Talk(Guests())
    packet = protocol.build_packet(160, type_, serial, 0, noise)
    talk.session.from_daemon(PacketWithFds(packet))
    assert talk.got() == [packet]
    assert talk.sent() == []


def test_a_gateway_without_a_socket(tmp_path: Path) -> None:
    """Without a place to listen, or a libvirt whose socket's rights it could take, it says so and ends."""
    ran = papr_hook("gateway")
    assert (ran.status, ran.err) == (2, "papr-hook: systemd passed no sockets, and --listen names none\n")
    nowhere = tmp_path / "upstream"
    ran = papr_hook("gateway", "--listen", str(tmp_path / "sock"), "--upstream", str(nowhere))
    assert (ran.status, ran.err) == (2, f"papr-hook: {nowhere}: No such file or directory\n")
    assert list(tmp_path.iterdir()) == []
