"""libvirt's flags."""

from __future__ import annotations

import pytest

from papr_hook.virt.flags import AffectFlag, XmlFlag, affected_xmls


@pytest.mark.parametrize(
    ("flags", "xmls"),
    [
        (0, (XmlFlag(0),)),
        (AffectFlag.LIVE, (XmlFlag(0),)),
        (AffectFlag.CONFIG, (XmlFlag.INACTIVE,)),
        (AffectFlag.LIVE | AffectFlag.CONFIG, (XmlFlag(0), XmlFlag.INACTIVE)),
    ],
    ids=["none", "live", "config", "both"],
)
def test_the_domain_xml_that_an_attach_changes(flags: int, xmls: tuple[XmlFlag, ...]) -> None:
    """Without a flag it is the one in force."""
    assert affected_xmls(flags) == xmls
