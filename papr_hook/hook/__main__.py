"""Entry point of hooks/qemu: python3 -m papr_hook.hook GUEST OPERATION SUB-OPERATION EXTRA."""

from .decision import run

run()
