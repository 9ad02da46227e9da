"""Definitions of pseries guests that nobody wrote: hypothesis strategies for them.

What they cover: every row of the device table, on PCI and elsewhere; devices with and without
addresses, on vPHBs of their own, heaped up, out of range; sets of functions and USB 2 sets; host
devices in IOMMU groups; vPHBs in order and in every kind of disorder, and bridges; numbers in
every base; metadata, comments, foreign namespaces, and what a qemu:commandline adds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from hypothesis import strategies as st

from papr_hook.model import HostTopology, PciAddress
from tests.helpers.device_templates import ELSEWHERE, ON_PCI, ONCE, STRANGE

COMPANIONS = (("ich9-ehci1", 7), ("ich9-uhci1", 0), ("ich9-uhci2", 1), ("ich9-uhci3", 2))
BRIDGES = ("pci-bridge", "pcie-root-port", "pcie-root", "dmi-to-pci-bridge", "pci-expander-bus")
HEX = ("{:#04x}", "{:d}", "{:#x}", "0{:o}", "+{:d}", " {:d}", "0X{:X}", "0x000{:x}", "\n+0{:o}")
DECIMAL = ("{:d}", "{:d}", "0{:d}", "+{:d}", " {:d}")
COMMANDLINES = (
    ("-device", "edu,bus=pci.{bus}.0"),
    ("-device", "edu,id=x,bus=pci.{bus},addr=3"),
    ("--device", "edu"),
    ("-device", "usb-tablet"),
    ("-device", '{{"driver":"edu"}}'),
    ("-device", '{{"driver":"edu","bus":"pci.{bus}.0"}}'),
    ("-device", "spapr-pci-host-bridge,index={bus}"),
    ("-drive", "if=virtio,file=/x"),
    ("-cpu", "host"),
)


@dataclass(frozen=True)
class Case:
    """A definition, and what else decides about its layout.

    before, devices, after: its text, with the devices in pieces that may be put in any order.
    """

    before: str
    devices: tuple[str, ...]
    after: str
    between: str
    encoding: str
    spares: int
    topology: HostTopology = field(default_factory=HostTopology)

    @property
    def data(self) -> bytes:
        """The definition."""
        return (self.before + self.between.join(self.devices) + self.after).encode(self.encoding)

    def shuffled(self, order: Iterable[int]) -> Case:
        """The same with its devices in another order, which is a sort key for each."""
        keyed = sorted(zip(order, range(len(self.devices))))
        return replace(self, devices=tuple(self.devices[position] for _, position in keyed))

    def of_another(self, head: str) -> Case:
        """The same devices in a guest whose definition starts in another way."""
        rest = self.before[self.before.index("</os>") :]
        return replace(self, before=head + rest)


@dataclass
class Places:
    """Gives out addresses.

    how: nowhere; own: a vPHB for each unit; few: some vPHBs for all; anywhere. clashes: two devices
    may get one address. gaps: some get none.
    """

    draw: st.DrawFn
    how: str
    clashes: bool
    gaps: bool
    styles: tuple[str, ...]
    next_bus: int = 1
    used: set[tuple[int, int, int]] = field(default_factory=set)
    group_bus: dict[object, int] = field(default_factory=dict)
    there: set[str] = field(default_factory=set)

    def number(self, value: int) -> str:
        """A number in one of the styles of this definition."""
        style = self.styles[0] if len(self.styles) == 1 else self.draw(st.sampled_from(self.styles))
        return style.format(value)

    def bus(self, group: object = None) -> int:
        """A bus for a unit; members of a group stay together where each unit has its own."""
        if self.how == "own":
            if group is not None and group in self.group_bus:
                return self.group_bus[group]
            bus, self.next_bus = self.next_bus, self.next_bus + 1
            if group is not None:
                self.group_bus[group] = bus
            return bus
        return self.draw(st.integers(0, 4 if self.how == "few" else 34))

    def address(self, bus: int, slot: int, function: int, more: str = "") -> str:
        """An <address>, moved to where nothing is yet unless clashes are wanted."""
        while not self.clashes and (bus, slot, function) in self.used:
            slot, function = (slot, function + 1) if function < 7 else (slot % 31 + 1, 0)
        self.used.add((bus, slot, function))
        return (
            f"<address type='pci' domain='{self.number(0)}' bus='{self.number(bus)}' "
            f"slot='{self.number(slot)}' function='{self.number(function)}'{more}/>"
        )

    def one(self, group: object = None) -> str:
        """An address for a device of its own, or none."""
        odd = self.draw(st.integers(0, 15))
        if self.how == "nowhere" or (self.gaps and odd == 1):
            return ""
        if self.how == "anywhere" and odd < 5:
            return (
                "",
                "",
                "<address type='pci'/>",
                f"<address type='pci' domain='1' bus='{self.bus()}' slot='1'/>",
                f"<address type='pci' bus='{self.bus()}' slot='{self.draw(st.integers(0, 31))}'/>",
            )[odd]
        if self.how == "own":
            bus = self.bus(group)
            taken = {slot for there, slot, _ in self.used if there == bus}
            return self.address(bus, next((slot for slot in range(1, 32) if slot not in taken), 31), 0)
        slot = self.draw(st.integers(1, 4 if self.how == "few" else 31))
        return self.address(self.bus(), slot, 0 if odd < 13 else odd - 10)


def _filled(template: str, number: int, at: str) -> str:
    letters = _letters(number)
    return template.format(
        n=number,
        vd=f"vd{letters}",
        sd=f"sd{letters}",
        mac=f"52:54:00:00:00:{number:02x}",
        mac16=f"{number:08x}",
        mac4=f"{number:04x}",
        index=number % 7 + (3 if number % 7 else 0),
        few=number % 3,
        slot=number % 31,
        at=at,
    )


def _letters(number: int) -> str:
    """The letters of the disk with a number: a, b … z, aa, ab …"""
    first = _letters(number // 26 - 1) if number > 25 else ""
    return first + chr(ord("a") + number % 26)


def _single(places: Places, number: int, share_on_pci: int, strange: bool) -> str:
    """One element that may be a device."""
    if strange and places.draw(st.integers(0, 9)) == 9:
        return _filled(places.draw(st.sampled_from(STRANGE)), number, places.one())
    on_pci = places.draw(st.integers(0, 99)) < share_on_pci
    template = places.draw(st.sampled_from(ON_PCI if on_pci else ELSEWHERE))
    tag = template[1:].partition(" ")[0].partition(">")[0]
    if tag in ONCE and tag in places.there and not strange:
        on_pci, template = True, ON_PCI[0]
    places.there.add(tag)
    return _filled(template, number, places.one() if on_pci else "")


def _functions(places: Places, number: int) -> Iterator[str]:
    """Functions of one slot, in any order, some without function 0."""
    functions = places.draw(st.lists(st.integers(0, 7), min_size=2, max_size=4, unique=True))
    bus = places.bus()
    slot = places.draw(st.integers(1, 31))
    while not places.clashes and any((bus, slot, f) in places.used for f in functions):
        bus, slot = (places.bus(), slot) if places.how == "own" else (bus, slot % 31 + 1)
        if len(places.used) > 500:
            return
    for offset, function in enumerate(functions):
        more = " multifunction='on'" if function == 0 else ""
        at = places.address(bus, slot, function, more) if places.how != "nowhere" else ""
        yield _filled(places.draw(st.sampled_from(ON_PCI)), number + offset, at)


def _companions(places: Places, index: int) -> Iterator[str]:
    """A USB 2 set, whole or not, in one slot or not, with an index or joined by its order."""
    members = places.draw(st.lists(st.sampled_from(COMPANIONS), min_size=1, max_size=4, unique=True))
    together = places.how == "own" or places.draw(st.booleans())
    bus, slot = places.bus(), places.draw(st.integers(1, 31))
    taken = any((bus, slot, function) in places.used for _, function in members)
    counted = places.draw(st.integers(0, 3)) == 0
    for model, function in members:
        at = ""
        if places.how != "nowhere":
            at = places.address(bus, slot, function) if together and not taken else places.one()
        number = "" if counted else f" index='{index}'"
        yield f"<controller type='usb'{number} model='{model}'>{at}</controller>"


def _host_device(places: Places, number: int, group: int | None) -> tuple[PciAddress, str]:
    """A host device in an IOMMU group, None for one that the host does not have."""
    source = PciAddress(0, number // 32 + 1, number % 32, 0)
    if places.draw(st.integers(0, 9)) == 0:
        source = replace(source, function=places.draw(st.integers(1, 7)))
    at = places.one(("group", group) if group is not None else None)
    host = (
        f"<source><address {{type}}domain='0x0000' bus='{source.bus:#04x}' slot='{source.slot:#04x}' "
        f"function='{source.function:#x}'/></source>"
    )
    if places.draw(st.integers(0, 3)) == 0:
        text = (
            f"<interface type='hostdev' managed='yes'>{host.format(type='type=' + repr('pci') + ' ')}{at}</interface>"
        )
    else:
        text = f"<hostdev mode='subsystem' type='pci' managed='yes'>{host.format(type='')}{at}</hostdev>"
    return source, text


def _tidy_roots(places: Places, count: int) -> Iterator[str]:
    for index in range(count):
        yield f"<controller type='pci' index='{index}' model='pci-root'><target index='{index}'/></controller>"


def _untidy_roots(places: Places, count: int) -> Iterator[str]:
    """vPHBs in disorder, and bridges between them."""
    indexes = places.draw(st.lists(st.integers(0, 34), min_size=count, max_size=count, unique=True))
    for index in indexes:
        odd = places.draw(st.integers(0, 15))
        number = "" if odd == 1 else f" index='{places.draw(st.sampled_from(DECIMAL)).format(index)}'"
        if odd in (2, 3):
            model = BRIDGES[0] if odd == 2 else places.draw(st.sampled_from(BRIDGES))
            at = places.one() if places.how != "own" else ""
            yield f"<controller type='pci'{number} model='{model}'>{at}</controller>"
            continue
        target = index if odd < 10 else places.draw(st.integers(0, 31))
        node = f"<node>{places.draw(st.integers(0, 1))}</node>" if odd in (4, 5) else ""
        inside = f"<target index='{places.number(target)}'>{node}</target>" if odd != 6 else ""
        alias = f"<alias name='ua-phb{index}'/>" if odd == 7 else ""
        model = "<model name='spapr-pci-host-bridge'/>" if odd == 8 else ""
        yield f"<controller type='pci'{number} model='pci-root'>{model}{inside}{alias}</controller>"


def _metadata(draw: st.DrawFn) -> str:
    odd = draw(st.integers(0, 10))
    if odd < 6:
        return ""
    own = (
        "",
        "<papr:layout xmlns:papr='urn:papr-hook:domain:1' mode='auto' spares='2'/>",
        "<p:layout xmlns:p='urn:papr-hook:domain:1' spares=' +07'/>",
        "<papr:layout xmlns:papr='urn:papr-hook:domain:1' spares='30'/>",
        "<papr:layout xmlns:papr='urn:papr-hook:domain:1' reserve=' 3 7'/>",
    )[odd - 6]
    return f"<metadata><a:app xmlns:a='urn:a'><a:x b='1'>te<!-- x -->xt</a:x></a:app>{own}</metadata>"


def _commandline(draw: st.DrawFn) -> str:
    odd = draw(st.integers(0, 11))
    if odd > 1:
        return ""
    if odd == 1:
        return (
            "<qemu:override><qemu:device alias='ua-x'><qemu:frontend>"
            f"<qemu:property name='bus' type='string' value='pci.{draw(st.integers(0, 31))}.0'/>"
            "</qemu:frontend></qemu:device></qemu:override>"
        )
    chosen = draw(st.lists(st.sampled_from(COMMANDLINES), min_size=1, max_size=3))
    arguments = [text.format(bus=draw(st.integers(0, 31))).replace('"', "&quot;") for pair in chosen for text in pair]
    return "<qemu:commandline>{}</qemu:commandline>".format(
        "".join(f"<qemu:arg value='{text}'/>" for text in arguments)
    )


def _head(draw: st.DrawFn) -> str:
    machine = draw(st.sampled_from((" machine='pseries'", " machine='pseries-9.2'", "")))
    emulation = draw(st.sampled_from(("kvm", "qemu")))
    return (
        f"<domain type='{emulation}' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>g</name>"
        "<uuid>8f99e332-06c4-463a-9099-330fb244e1b3</uuid>{metadata}<memory unit='KiB'>1048576</memory>"
        f"<os><type arch='ppc64'{machine}>hvm</type><boot dev='hd'/></os>"
    )


def _pieces(draw: st.DrawFn, places: Places, groups: dict[PciAddress, int]) -> Iterator[tuple[str, ...]]:
    """The pieces of a definition: elements that stay together."""
    count = draw(st.integers(0, 60))
    on_pci = draw(st.sampled_from((50, 80, 100)))
    strange = draw(st.booleans())
    hosts = draw(st.sampled_from((0, 0, 10, 95)))
    host_groups = draw(st.sampled_from((1, 5, 80)))
    if draw(st.booleans()):
        yield ("<controller type='usb' index='0' model='none'/>",)
        yield ("<memballoon model='none'/>",)
        places.there.add("memballoon")
    number = 0
    while number < count:
        kind = draw(st.integers(0, 99))
        if kind < hosts:
            group = draw(st.integers(0, host_groups))
            source, text = _host_device(places, number, group or None)
            if group:
                groups[source] = group
            yield (text,)
        elif kind >= 97:
            yield tuple(_companions(places, number))
        elif kind >= 93:
            yield tuple(_functions(places, number))
            number += 4
        else:
            yield (_single(places, number, on_pci, strange),)
        number += 1


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Definitions of pseries guests."""
    styles = draw(st.sampled_from((HEX[:1], HEX[1:2], HEX)))
    how = draw(st.sampled_from(("nowhere", "own", "few", "anywhere")))
    places = Places(draw, how, draw(st.integers(0, 9)) == 9, draw(st.booleans()), styles)
    places.next_bus = draw(st.integers(0, 1))
    groups: dict[PciAddress, int] = {}
    pieces = list(_pieces(draw, places, groups))
    between = draw(st.sampled_from(("\n    ", "", "\n\n\t", "\n<!-- x -->\n")))
    return Case(
        before=_head(draw).format(metadata=_metadata(draw))
        + "<description>\u00e4 <![CDATA[<&>]]></description><devices>",
        devices=tuple(between.join(piece) for piece in (*_roots(draw, places), *pieces) if piece),
        after=f"</devices>{_commandline(draw)}</domain>\n",
        between=between,
        encoding="utf-8",
        spares=draw(st.sampled_from((4, 4, 0, 1, 30))),
        topology=HostTopology(groups, frozenset({"plain"}) if draw(st.integers(0, 9)) == 9 else frozenset()),
    )


def _roots(draw: st.DrawFn, places: Places) -> Iterator[tuple[str, ...]]:
    how = draw(st.sampled_from(("none", "tidy", "tidy", "untidy", "full")))
    if how == "tidy":
        enough = places.next_bus + draw(st.integers(0, 6))
        yield tuple(_tidy_roots(places, min(enough, 31)))
    elif how == "full":
        yield tuple(_tidy_roots(places, 31))
    elif how == "untidy":
        yield tuple(_untidy_roots(places, draw(st.integers(0, 20))))


OTHER_HEADS = (
    "<domain type='kvm'><name>g</name><os><type arch='x86_64' machine='q35'>hvm</type>",
    "<domain type='kvm'><name>g</name><os><type arch='s390x' machine='s390-ccw-virtio'>hvm</type>",
    "<domain type='qemu'><name>g</name><os><type arch='aarch64'>hvm</type>",
    "<domain type='qemu'><name>g</name><os><type arch='ppc64' machine='powernv9'>hvm</type>",
    "<domain type='qemu'><name>g</name><os><type arch='ppc64' machine='g3beige'>hvm</type>",
    "<domain type='lxc'><name>g</name><os><type arch='ppc64le'>exe</type>",
    "<domain type='xen'><name>g</name><os><type arch='x86_64'>hvm</type>",
)


@st.composite
def others(draw: st.DrawFn) -> Case:
    """Definitions of guests that are not pseries guests."""
    head = draw(st.sampled_from(OTHER_HEADS))
    return draw(cases()).of_another(head.replace("><name>", " xmlns:qemu='urn:q'><name>", 1))


def one_device(template: str) -> Case:
    """The definition of a guest with one device on vPHB 1."""
    at = "<address type='pci' domain='0x0000' bus='0x01' slot='0x01' function='0x0'/>"
    before = (
        "<domain type='kvm'><name>g</name><memory>1048576</memory>"
        "<os><type arch='ppc64' machine='pseries'>hvm</type></os><devices>"
    )
    return Case(before, (_filled(template, 0, at),), "</devices></domain>", "", "utf-8", 4)
