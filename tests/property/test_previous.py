"""What a layout promises about the domain XML that a guest had before."""

from __future__ import annotations

import re
from dataclasses import replace

from hypothesis import assume, given
from hypothesis import strategies as st

from papr_hook.layout import check, compute
from tests.helpers.generate import Case, cases
from tests.helpers.layouts import lay_out, read, without_addresses

ROOT = "<controller type='pci'"


@st.composite
def variants(draw: st.DrawFn, case: Case) -> Case:
    """Draw the case with some devices left out, with or without addresses, with or without PCI controllers."""
    devices = list(case.devices)
    if draw(st.booleans()):
        left_out = set(draw(st.lists(st.integers(0, max(len(devices) - 1, 0)), max_size=5)))
        devices = [device for position, device in enumerate(devices) if position not in left_out]
    if draw(st.booleans()):
        devices = [without_addresses(device) for device in devices]
    if draw(st.booleans()):
        devices = [device for device in devices if not device.startswith(ROOT)]
    return replace(case, devices=tuple(devices))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Case, bytes]:
    """Draw a guest and an earlier domain XML: of the guest, of a variant of it, or of another guest."""
    case = draw(cases())
    other = draw(variants(case)) if draw(st.integers(0, 3)) else draw(cases())
    before = lay_out(other.data, case) if draw(st.integers(0, 3)) else None
    return draw(variants(case)), before.data if before is not None else other.data


@given(pairs())
def test_a_layout_with_an_earlier_one(pair: tuple[Case, bytes]) -> None:
    case, previous = pair
    done = lay_out(case.data, case, previous)
    if done is None:
        return
    _, guest, spares = read(done.data, case)
    left = check.check(guest, spares, case.topology)
    assert check.complies(left), [str(found) for found in left]
    again = lay_out(done.data, case, previous)
    assert again is not None
    assert again.data == done.data, "L(L(x, p), p) = L(x, p)"
    with_itself = lay_out(case.data, case, done.data)
    assert with_itself is not None
    assert with_itself.layout.addresses == done.layout.addresses, "L(x, L(x, p)) = L(x, p)"
    if not compute.lacks_place(done.guest, done.spares, case.topology):
        alone = lay_out(case.data, case)
        assert alone is not None
        assert alone.data == done.data, "what lacks no place does not depend on the earlier domain XML"


@given(pairs())
def test_an_earlier_layout_makes_nothing_share_and_costs_no_spare(pair: tuple[Case, bytes]) -> None:
    case, previous = pair
    with_memory, without = lay_out(case.data, case, previous), lay_out(case.data, case)
    assert (with_memory is None) == (without is None)
    if with_memory is not None and without is not None:
        names = {diagnostic.name for diagnostic in with_memory.layout.diagnostics}
        assert names <= {diagnostic.name for diagnostic in without.layout.diagnostics}


@given(cases())
def test_names_of_nics_stay_when_a_guest_is_defined_without_addresses(case: Case) -> None:
    """Every device comes back to its address, and every vPHB with a device to its target index."""
    devices = (device for device in case.devices if not device.startswith(ROOT))
    bare = replace(case, devices=tuple(map(without_addresses, devices)))
    done = lay_out(case.data, case)
    again = lay_out(bare.data, bare, done.data) if done is not None else None
    if done is None or again is None or done.guest.reserve or done.layout.diagnostics or again.layout.diagnostics:
        return
    targets, targets_again = ({phb.index: phb.target for phb in one.layout.phbs} for one in (done, again))
    for old, new in zip(done.layout.addresses, again.layout.addresses):
        if sum(address.bus == old.bus for address in done.layout.addresses) == 1:
            assert (new, targets_again[new.bus]) == (old, targets[old.bus])


@given(cases(), st.data())
def test_the_order_of_the_domain_xml_changes_no_address(case: Case, data: st.DataObject) -> None:
    """Devices of one kind keep their order, except disks, which libvirt sorts."""
    bare = replace(case, devices=tuple(map(without_addresses, case.devices)))
    assume(all(_is_one_kind(device) for device in bare.devices))
    order = data.draw(st.permutations(range(len(bare.devices))))
    shuffled = replace(bare, devices=_keep_kinds_in_order(bare.devices, order))
    one, other = lay_out(bare.data, bare), lay_out(shuffled.data, bare)
    assert (one is None) == (other is None)
    if one is not None and other is not None:
        assert one.places == other.places
        targets = [[phb.target for phb in done.layout.phbs] for done in (one, other)]
        assert targets[0] == targets[1]


def _is_one_kind(piece: str) -> bool:
    """Whether a piece is one device, or the PCI controllers."""
    return piece.startswith(ROOT) or _device_count(piece) == 1


def _device_count(piece: str) -> int:
    depth = count = 0
    for closing, empty in re.findall(r"<(/?)[a-z][^>]*?(/?)>", piece):
        if closing:
            depth -= 1
        else:
            count += depth == 0
            depth += not empty
    return count


def _keep_kinds_in_order(pieces: tuple[str, ...], order: list[int]) -> tuple[str, ...]:
    """Return the pieces in another order, but those of one tag in their own order unless they are disks."""
    kinds = ["disk" if piece.startswith("<disk") else re.split(r"[ />]", piece, maxsplit=1)[0] for piece in pieces]
    queues = {kind: iter([n for n, other in enumerate(kinds) if other == kind]) for kind in kinds}
    return tuple(pieces[n if kinds[n] == "disk" else next(queues[kinds[n]])] for n in order)
