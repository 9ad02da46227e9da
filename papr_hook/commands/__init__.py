"""The commands of papr-hook, one module each.

A module has add_arguments(parser), which declares its arguments, and run(args, io), which returns the exit status.
The command line imports the module of the command that it runs and no other: what a command needs costs the others
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

COMMANDS: Final[Mapping[str, str]] = {
    "layout": "lay out a guest's domain XML",
    "check": "report violations of the layout rules",
    "plan": "report what layout would do to guests, and why",
    "show": "draw the vPHBs of a guest and the devices on them",
    "adopt": "lay out the guests that are defined on a host",
    "attach": "attach a device to a guest, on a vPHB of its own",
    "doctor": "report what is wrong with papr-hook on a host, or with a running guest",
    "gateway": "serve libvirt clients in place of libvirt, or set up where they connect",
}
"""The commands in the order of --help, each with its summary."""
