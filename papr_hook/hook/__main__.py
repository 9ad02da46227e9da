"""Entry point of hooks/qemu: python3 -I -S __main__.py GUEST OPERATION SUB-OPERATION EXTRA."""

import gc
import os
import sys

# libvirt waits for this process, which is over before its memory matters: collecting garbage, and freeing every
# module in the end, takes as long as the decision. So does loading site, for two directories: that of Debian's
# packages, and the one that other distributions have beside the standard library's.
gc.disable()
if sys.argv[2:3] == ["doctor"]:  # which changes nothing on the host
    sys.dont_write_bytecode = True
here = os.path.realpath(__file__)
for _ in range(3):
    here = os.path.dirname(here)
sys.path.insert(0, here)
if sys.flags.no_site:
    sys.path += [f"{sys.prefix}/lib/python3/dist-packages", f"{os.path.dirname(sys.path[-1])}/site-packages"]
    try:
        import lxml.etree  # noqa: F401
    except ImportError:
        import site

        site.main()

from papr_hook.hook.decision import run  # noqa: E402

status = run()
if sys.stderr is not None:
    sys.stderr.flush()
os._exit(status)
