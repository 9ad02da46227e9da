"""libvirt networks that hand out host devices, from the files that libvirt keeps of its networks.

Persistent networks are in networks/ beside the domain XML, active ones in network/ of libvirt's run directory
(libvirt src/conf/virnetworkobj.c).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..config import Config
from ..domainxml.text import parse
from ..errors import PaprHookError
from ..records import Record


@dataclass(frozen=True, eq=False, repr=False)
class Networks(Record):
    """Some networks by what their files say.

    hostdev: the ones that hand out host devices; unreadable: the ones whose files this user may not read.
    """

    hostdev: frozenset[str]
    unreadable: frozenset[str]


def read_networks(names: Iterable[str], config: Config) -> Networks:
    """Sort networks by whether they hand out host devices.

    Args:
        names: the networks' names.
        config: says where libvirt's directories are.
    """
    hostdev: set[str] = set()
    unreadable: set[str] = set()
    for name in names:
        if "/" in name:  # no network has such a name: it is a file name
            continue
        for folder in (config.domain_dir / "networks", config.libvirt_run_dir / "network"):
            try:
                data = (folder / f"{name}.xml").read_bytes()
            except PermissionError:
                unreadable.add(name)
            except (OSError, ValueError):
                continue
            else:
                if is_hostdev_network(data):
                    hostdev.add(name)
    return Networks(frozenset(hostdev), frozenset(unreadable - hostdev))


def is_hostdev_network(network: bytes) -> bool:
    """Tell whether a network hands out host devices, by its <forward mode='hostdev'>.

    Args:
        network: its XML, as libvirt returns it or keeps it.
    """
    try:
        root = parse(network).getroot()
    except PaprHookError:
        return False
    inner = root if root.tag == "network" else root.find("network")  # libvirt keeps active ones in <networkstatus>
    forward = inner.find("forward") if inner is not None else None
    return forward is not None and forward.get("mode") == "hostdev"
