"""Fuzz domain XML to a layout and back.

An input that starts with a zero is a document. Any other is a script: it picks one of the golden documents, and what to
delete, copy, replace and insert there, so that most of what is tried is still XML.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

from fuzz.driver import main
from papr_hook import domainxml, pipeline
from papr_hook.config import Config
from papr_hook.diagnostics import Name
from papr_hook.errors import InputError, LayoutError
from papr_hook.layout import check

GOLDEN = Path(__file__).parents[1] / "tests/golden"
NOWHERE = Path("/nonexistent")
CONFIG = Config(sysfs=NOWHERE, domain_dir=NOWHERE, libvirt_run_dir=NOWHERE)

_TOKEN = re.compile(r"<!--.*?-->|<[^>]*>|[^<]+", re.DOTALL)
_VALUE = re.compile(r"=(?:'[^']*'|\"[^\"]*\")")

VALUES = (
    "0", "1", "31", "0x1f", "0x20", "017", "-1", "99999999999999999999", "pci", "pci-root", "virtio", "nvme0n1", "vda",
    "drive", "unassigned", "usb", "scsi", "0-65535,^7", "ua-a", "keep", "ich9-uhci1", "hostdev", "pci.1", "-device",
    "spapr-pci-host-bridge,index=01,id=pci.1", '{&quot;driver&quot;:&quot;edu&quot;,&quot;addr&quot;:9}', "\u00e4", "",
)  # fmt: skip
MARKUP = (
    "<!-- <a> -->", "<![CDATA[<a>]]>", "<?a <b> ?>", "&#10;", "&lt;", "\r\n", "\t", "text", "<rng model='virtio'/>",
    "<address type='pci' slot='1'/>", "<interface type='user'><model type='virtio'/></interface>", "<devices>",
    "<disk><target dev='sda' bus='sata'/></disk>", "<channel><target type='virtio'/></channel>", "</devices>",
    "<controller type='pci' model='pci-root'/>", "<controller type='pci' index='1' model='pci-bridge'/>",
    "<hostdev type='scsi'/>", "<hostdev mode='subsystem' type='pci'><source><address slot='1'/></source></hostdev>",
    "<metadata><papr:layout xmlns:papr='urn:papr-hook:domain:1' spares='2' reserve='1'/></metadata>", "<!DOCTYPE a>",
)  # fmt: skip
ENCODINGS = ("utf-8", "utf-8", "utf-8", "utf-16", "utf-16-le", "utf-8-sig")


@functools.lru_cache(maxsize=1)
def _documents() -> tuple[str, ...]:
    return tuple(file.read_text() for file in sorted(GOLDEN.glob("*.xml")))


def make_document(script: bytes) -> bytes:
    """Return the document that a script makes of a golden one.

    Args:
        script: The number of the document, its encoding, and then three bytes for each step.
    """
    documents = _documents()
    tokens = _TOKEN.findall(documents[int.from_bytes(script[:2], "big") % len(documents)])
    for position in range(3, len(script) - 2, 3):
        step, where, what = script[position : position + 3]
        # A byte is a part of the way through the tokens, which may be more than it can count.
        at = where * len(tokens) // 256
        size = what % 16 + 1
        if step % 6 == 0:
            del tokens[at : at + size]
        elif step % 6 == 1:
            tokens[at:at] = tokens[at : at + size]
        elif step % 6 == 2:
            tokens.insert(at, MARKUP[what % len(MARKUP)])
        elif tokens and step % 6 in (3, 4):
            value = VALUES[what % len(VALUES)]
            found = _VALUE.findall(tokens[at])
            if found:
                tokens[at] = tokens[at].replace(found[step // 6 % len(found)], f"='{value}'", 1)
        elif tokens:
            tokens[at] = tokens[at].replace("'", '"').replace("/>", " />")
        if not tokens:
            break
    encoding = ENCODINGS[script[2] % len(ENCODINGS)] if len(script) > 2 else "utf-8"
    return "".join(tokens).encode(encoding, "surrogatepass")


def fuzz_one(data: bytes) -> None:
    """Lay out one document, and check what every layout promises."""
    document = data[1:] if data[:1] == b"\0" else make_document(data[1:])
    try:
        analysis = pipeline.analyze(document, CONFIG, "ppc64le")
        violations = analysis.violations()
        result = analysis.apply_layout()
    except (InputError, LayoutError) as error:
        assert "\n" not in str(error), "a message of several lines"
        return
    if analysis.guest is None:
        assert result.data == document, "a guest that is not to be laid out was changed"
        return
    assert all(found.name is not Name.REFORMATTED for found in result.diagnostics), "the document was reformatted"
    assert result.changed or check.complies(violations), "a guest that does not comply was not changed"
    again = pipeline.analyze(result.data, CONFIG, "ppc64le")
    assert isinstance(again.domain, domainxml.PseriesDomain)
    assert check.complies(again.violations()), [str(found) for found in again.violations()]
    assert again.apply_layout().data == result.data, "laying out twice is not laying out once"


if __name__ == "__main__":
    main("domainxml", fuzz_one)
