"""How findings read, and which of them make a guest non-compliant."""

from __future__ import annotations

from papr_hook.diagnostics import Name, Rule, error, warning


def test_a_finding_is_one_line_with_its_name() -> None:
    """Severity, device, text and name, as a compiler prints them."""
    found = error(Name.NO_ADDRESS, "has no PCI address", "<disk> vda", 7)
    assert str(found) == "error: <disk> vda has no PCI address [no-address]"
    assert found.message == "<disk> vda has no PCI address [no-address]"
    assert (found.rule, found.line, found.is_error) == (Rule.ADDRESSES, 7, True)


def test_a_finding_about_the_whole_guest_names_no_device() -> None:
    """Its text is a sentence of its own; a cost belongs to no rule."""
    found = warning(Name.HARD_LIMIT, "5 vPHBs need 10300 MiB")
    assert str(found) == "warning: 5 vPHBs need 10300 MiB [hard-limit]"
    assert (found.rule, found.is_error) == (None, False)


def test_names_are_words_with_hyphens() -> None:
    """A name can be searched for, and typed into a shell."""
    assert all(name.value.replace("-", "").isalnum() and name.value.islower() for name in Name)
