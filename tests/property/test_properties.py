"""What a layout promises, tried on definitions that nobody wrote.

The profile "ci" tries a few hundred, "long" 100,000: HYPOTHESIS_PROFILE=long or
--hypothesis-profile=long.
"""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from papr_hook import domainxml, schema
from papr_hook.diagnostics import Name
from papr_hook.errors import InputError, LayoutError
from papr_hook.layout import check, compute
from papr_hook.layout.current import CurrentLayout
from papr_hook.layout.keep import find_kept
from papr_hook.model import MAX_PHBS
from tests.helpers.device_templates import ELSEWHERE, ON_PCI
from tests.helpers.generate import Case, cases, one_device, others
from tests.helpers.layouts import Done, lay_out, read

RNG = Path("/usr/share/libvirt/schemas/domain.rng")


@given(cases())
def test_a_layout_keeps_its_promises(case: Case) -> None:
    done = lay_out(case.data, case)
    if done is not None:
        check_finds_nothing(done)
        twice_is_once(done)
        what_complies_stays(done)
        what_is_alone_stays(done)
        nothing_but_placement_changes(done)
        libvirts_schema_takes_it(done)


def check_finds_nothing(done: Done) -> None:
    _, guest, spares = read(done.data, done.case)
    left = check.check(guest, spares, done.case.topology)
    assert check.complies(left), [str(violation) for violation in left]


def twice_is_once(done: Done) -> None:
    again = lay_out(done.data, done.case)
    assert again is not None
    assert again.data == done.data


def what_complies_stays(done: Done) -> None:
    """check() is content exactly with what layout() leaves where it is."""
    guest = done.guest
    stays = (
        bool(guest.phbs)
        and not guest.bridges
        and tuple(device.address for device in guest.devices) == done.layout.addresses
        and all(phb in done.layout.phbs for phb in guest.phbs)
    )
    if check.complies(done.violations):
        assert stays
    elif stays:
        # More vPHBs may be all that is missing: in a gap, where a device is, or for what the commandline puts last.
        there = {phb.index for phb in guest.phbs}
        gap = len(there) <= max(there) or any(place.bus not in there for place in done.layout.addresses)
        assert gap or guest.commandline_uses_last_bus, [str(violation) for violation in done.violations]


def what_is_alone_stays(done: Done) -> None:
    """A device that has a good vPHB for itself keeps it, with its target index and its NUMA node."""
    guest = done.guest
    if any(found.name is Name.SHARED_VPHB for found in done.layout.diagnostics):
        return
    on_bus = Counter(device.address.bus for device in guest.devices if device.address is not None)
    on_bus.update(bridge.address.bus for bridge in guest.bridges if bridge.address is not None)
    on_bus.update(guest.used_by_commandline)
    targets = Counter(phb.target for phb in guest.phbs)
    phbs = {phb.index: phb for phb in guest.phbs}
    after = {phb.index: phb for phb in done.layout.phbs}
    pairs = list(zip(guest.devices, done.layout.addresses))
    for device, place in pairs:
        at = device.address
        if at is None or at.domain or not at.slot or at.bus >= MAX_PHBS or at.bus not in phbs or on_bus[at.bus] > 1:
            continue
        if device.passthrough or device.usb2_group is not None or device.network in done.case.topology.hostdev_networks:
            continue
        if at.bus == 0 and any(nic.is_interface and other.bus == 0 for nic, other in pairs if nic is not device):
            continue  # libvirt alone would put a NIC without an address there
        assert place == at, device
        phb = phbs[at.bus]
        assert after[at.bus].node == phb.node
        good = phb.target is not None and (phb.target == 0) == (phb.index == 0) and phb.target < MAX_PHBS
        if good and targets[phb.target] == 1 and phb.target not in guest.commandline_targets:
            assert after[at.bus].target == phb.target


def bare(data: bytes) -> tuple[bytes, list[bytes], dict[int, bytes]]:
    """A definition without its PCI placement: the rest, its devices, its vPHBs by index."""
    root = etree.fromstring(data)
    for element in root.iter():
        element.text = element.text if element.text and element.text.strip() else None
        element.tail = element.tail if element.tail and element.tail.strip() else None
    found: list[bytes] = []
    phbs: dict[int, bytes] = {}
    for holder in root.findall("devices"):
        for child in list(holder):
            holder.remove(child)
            if isinstance(child.tag, str):
                for address in child.findall("address[@type='pci']"):
                    child.remove(address)
            if child.tag == "controller" and child.get("type") == "pci":
                if child.get("model") == "pci-root" and child.get("index") is not None:
                    for target in child.findall("target"):
                        child.remove(target)
                    index = int(child.attrib.pop("index"))
                    phbs[index] = canonical(child)
            else:
                found.append(canonical(child))
    return canonical(root), found, phbs


def canonical(element: etree._Element) -> bytes:
    """An element, comment or instruction in its canonical form, without the text after it."""
    if not isinstance(element.tag, str):
        return etree.tostring(element, with_tail=False)
    return etree.tostring(element, method="c14n", with_comments=True, with_tail=False)


def nothing_but_placement_changes(done: Done) -> None:
    rest, found, phbs = bare(done.case.data)
    rest_after, found_after, phbs_after = bare(done.data)
    assert rest_after == rest
    for index in phbs.keys() & phbs_after.keys():
        assert phbs_after[index] == phbs[index]
    added = list(found_after)
    for device in found:
        added.remove(device)
    kept = [device for device in found_after if device not in added or device in found]
    assert [device for device in kept if device in found] == found
    assert len(added) == sum(device.line is None for device in done.guest.devices)


@functools.lru_cache(maxsize=1)
def relaxng() -> etree.RelaxNG | None:
    return etree.RelaxNG(etree.parse(str(RNG))) if RNG.exists() else None


def libvirts_schema_takes_it(done: Done) -> None:
    schema = relaxng()
    if schema is not None and schema.validate(etree.fromstring(done.case.data)):
        assert schema.validate(etree.fromstring(done.data)), schema.error_log


@pytest.mark.skipif(not RNG.exists(), reason="libvirt's schemas are not installed")
@pytest.mark.parametrize("template", [*ON_PCI, *ELSEWHERE])
def test_libvirts_schema_takes_what_is_generated(template: str) -> None:
    """Otherwise it would judge nothing."""
    schema = relaxng()
    assert schema is not None
    assert schema.validate(etree.fromstring(one_device(template).data)), schema.error_log


@given(cases())
def test_the_contract_holds_as_a_schema(case: Case) -> None:
    done = lay_out(case.data, case)
    if done is not None:
        assert schema.violations(done.data) == ()


@given(cases())
def test_the_schema_finds_nothing_where_check_finds_nothing(case: Case) -> None:
    try:
        _, guest, spares = read(case.data, case)
    except InputError:
        return
    if check.complies(check.check(guest, spares, case.topology)):
        assert schema.violations(case.data) == ()


@given(cases())
def test_the_schema_finds_something_where_check_does(case: Case) -> None:
    """Where nothing depends on the host, on a commandline or on SCSI host devices."""
    try:
        _, guest, spares = read(case.data, case)
    except InputError:
        return
    capacity = find_kept(CurrentLayout(guest, case.topology), spares).capacity
    told = capacity.fits_exclusively and not (
        b"<qemu:" in case.data or b"type='scsi'" in case.data or case.topology.hostdev_networks
    )
    if told and not any(device.passthrough for device in guest.devices):
        complies = check.complies(check.check(guest, spares, case.topology))
        assert complies == (schema.violations(case.data) == ())


@given(cases(), st.data())
def test_the_order_does_not_decide_whether_devices_fit(case: Case, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(case.devices))))
    fits = [_fits(case), _fits(case.shuffled(order))]
    assert None in fits or fits[0] == fits[1]


def _fits(case: Case) -> bool | None:
    """Whether a layout is possible; None for what is no definition."""
    try:
        _, guest, spares = read(case.data, case)
        compute.compute_layout(guest, spares, case.topology)
    except InputError:
        return None
    except LayoutError:
        return False
    return True


@given(others())
def test_another_guest_comes_back_byte_for_byte(case: Case) -> None:
    found = domainxml.read(case.data, "ppc64le")
    assert isinstance(found, domainxml.OtherDomain)
    assert found.data == case.data
