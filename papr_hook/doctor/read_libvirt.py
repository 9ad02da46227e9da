"""Read what libvirt says about itself and its guests on autostart."""

from __future__ import annotations

import importlib.metadata
import platform

from lxml import etree

from .. import __version__, pipeline
from ..config import Config
from ..errors import InputError, LibvirtError
from ..layout.check import complies
from ..virt.connection import Connection, connect
from .facts import LibvirtFacts


def read_libvirt(uri: str, config: Config, is_remote: bool) -> LibvirtFacts:
    """Return the facts about libvirt.

    Args:
        uri: Its connection URI.
        config: The host's settings.
        is_remote: Whether it is another host's, so that this host's IOMMU groups say nothing about its guests.
    """
    try:
        with connect(uri) as connection:
            libvirt, qemu = connection.versions()
            return LibvirtFacts("", libvirt, qemu, tuple(_find_noncompliant(connection, config, is_remote)))
    except LibvirtError as error:
        return LibvirtFacts(str(error))


def _find_noncompliant(connection: Connection, config: Config, is_remote: bool) -> list[str]:
    """Return the names of the guests on autostart that do not comply. Raises LibvirtError if the daemon ends."""
    found = []
    for _, data in connection.read_guests(autostart=True):
        if isinstance(data, LibvirtError):
            continue
        try:
            analysis = pipeline.analyze(data, config)
        except InputError:
            continue
        guest = analysis.guest
        if guest is None or (is_remote and any(device.passthrough for device in guest.devices)):
            continue
        if not complies(analysis.violations()):
            found.append(guest.name)
    return found


def describe_software() -> str:
    """Return the versions of papr-hook and of what it runs on."""
    try:
        binding = importlib.metadata.version("libvirt-python")
    except importlib.metadata.PackageNotFoundError:
        binding = "unknown"
    lxml = ".".join(str(part) for part in etree.LXML_VERSION[:3])
    return f"papr-hook {__version__}, Python {platform.python_version()}, lxml {lxml}, libvirt-python {binding}"
