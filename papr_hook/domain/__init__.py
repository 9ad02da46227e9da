"""Domain XML: read into a Guest, and written back with a Layout. Nothing is decided here."""

from .read import Domain, read
from .write import write

__all__ = ["Domain", "read", "write"]
