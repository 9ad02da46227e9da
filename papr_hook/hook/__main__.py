"""Entry point of hooks/qemu: python3 -m papr_hook.hook GUEST OPERATION SUB-OPERATION EXTRA."""

import gc
import os
import sys

# libvirt waits for this process, which is over before its memory matters: collecting garbage, and freeing every
# module in the end, takes as long as the decision.
gc.disable()

from .decision import run  # noqa: E402

status = run()
if sys.stderr is not None:
    sys.stderr.flush()
os._exit(status)
