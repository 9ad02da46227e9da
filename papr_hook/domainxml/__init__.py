"""Domain XML: read into a Guest, and written back with a Layout. Nothing is decided here."""

from .read import OtherDomain, PseriesDomain, read
from .write import with_address, with_hostdevs, write

__all__ = ["OtherDomain", "PseriesDomain", "read", "with_address", "with_hostdevs", "write"]
