#!/usr/bin/python
"""Lay out the guests of a host with papr-hook adopt, or say in check mode which would be."""

from __future__ import annotations

import re

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: papr_hook_adopt
short_description: Lay out the guests of a libvirt host with papr-hook
description:
  - Runs C(papr-hook adopt). In check mode nothing changes.
  - The diff has the tree of C(papr-hook show) of each guest that changes, before and after. Without the Python module
    rich, it has what C(papr-hook plan) prints.
options:
  uri:
    description: The connection URI of libvirt.
    type: str
    default: qemu:///system
  guests:
    description: The names of the guests. None means all.
    type: list
    elements: str
    default: []
author: papr-hook maintainers
"""

RETURN = """
lines:
  description: What papr-hook adopt prints.
  type: list
  returned: always
"""

PLANNED = re.compile(r"(.*): to be laid out \(.*\)")


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "uri": {"type": "str", "default": "qemu:///system"},
            "guests": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    command = module.get_bin_path("papr-hook")
    if command is None:
        if module.check_mode:
            module.exit_json(changed=True, lines=["papr-hook is not installed yet: its plan is not known"])
        module.fail_json(msg="papr-hook is not installed")
    adopt = [command, "adopt", "--connect", module.params["uri"]]
    lines = run(module, [*adopt, "--dry-run", *module.params["guests"]])
    names = [found[1] for found in map(PLANNED.fullmatch, lines) if found]
    diff = [make_diff(module, command, name) for name in names] if module._diff else []
    if names and not module.check_mode:
        lines = run(module, [*adopt, "--yes", *module.params["guests"]])
    module.exit_json(changed=bool(names), lines=lines, diff=diff)


def run(module: AnsibleModule, argv: list[str]) -> list[str]:
    """Run papr-hook, and return the lines that it printed. The module fails with its messages."""
    status, out, err = module.run_command(argv)
    if status != 0:
        module.fail_json(msg=err.strip() or f"papr-hook failed with status {status}", lines=out.splitlines())
    return out.splitlines()


def make_diff(module: AnsibleModule, command: str, guest: str) -> dict[str, str]:
    """Return the tree of a guest before and after, or its plan where papr-hook cannot draw trees."""
    where = ["--connect", module.params["uri"], guest]
    status, before, _ = module.run_command([command, "show", *where])
    if status != 0:
        before, after = "", "\n".join(run(module, [command, "plan", *where])) + "\n"
    else:
        _, laid_out, _ = module.run_command([command, "layout", *where])
        _, after, _ = module.run_command([command, "show", "-"], data=laid_out)
    return {"before_header": guest, "after_header": guest, "before": before, "after": after}


if __name__ == "__main__":
    main()
