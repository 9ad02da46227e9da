"""Domain XML: read into a Guest, and written back with a Layout. Nothing is decided here."""

from .read import Domain, read
from .write import with_hostdevs, write

__all__ = ["Domain", "read", "with_hostdevs", "write"]
