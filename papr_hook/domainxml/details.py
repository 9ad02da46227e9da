"""What a device is, in words for people: its model, and what backs it on the host."""

from __future__ import annotations

from dataclasses import replace

from lxml import etree

from ..model import Guest
from .implicit import ImplicitDevice
from .read import PseriesDomain
from .values import shorten

_SOURCES = ("file", "dev", "bridge", "network", "path", "dir", "name", "volume", "wwpn", "port")
"""Attributes of <source> that name what backs a device, in the order in which they count."""

_MAX_BACKING = 60
"""Characters of a name that backs a device. Of a longer one the end is kept, which tells paths apart."""


def read_details(domain: PseriesDomain) -> Guest:
    """Return the guest of domain XML with the model and the backing of each device, which no layout needs."""
    devices = domain.guest.devices
    described = [
        replace(device, model=read_model(element), backing=read_backing(element))
        for device, element in zip(devices, domain.elements)
        if not isinstance(element, ImplicitDevice)
    ]
    return replace(domain.guest, devices=(*described, *devices[len(described) :]))


def read_model(element: etree._Element) -> str | None:
    """Return the model of a device, or the bus of a disk; None if the domain XML has none."""
    model, target = element.find("model"), element.find("target")
    candidates = (
        element.get("model"),
        (model.get("type") or model.get("name")) if model is not None else None,
        target.get("bus") if target is not None else None,
    )
    return next((shorten(text) for text in candidates if text), None)


def read_backing(element: etree._Element) -> str | None:
    """Return what backs a device on the host: a file, a block device, a bridge, a network; None if unknown."""
    source = element.find("source")
    backend = element.findtext("backend")
    names = [source.get(name) for name in _SOURCES] if source is not None else [backend]
    found = next((name.strip() for name in names if name and name.strip()), None)
    if found is None:
        return None
    line = " ".join(found.split()) if "\n" in found else found
    return line if len(line) <= _MAX_BACKING else f"...{line[3 - _MAX_BACKING :]}"
