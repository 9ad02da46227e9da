"""python3 -m papr_hook.hook is what hooks/qemu starts."""

from .decision import run

run()
