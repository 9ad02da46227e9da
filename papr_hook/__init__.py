"""PAPR PCI layouts for the pseries guests of a libvirt host."""

__version__ = "0.1"
