"""Domain XML: read into a Guest, and written back with a Layout. Nothing is decided here."""

from .read import OtherDomain, PseriesDomain, read

__all__ = ["OtherDomain", "PseriesDomain", "read"]
