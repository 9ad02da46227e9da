"""Arguments of QEMU, and what of the PCI buses they take: the unit tests expect it, and QEMU itself is asked."""

from __future__ import annotations

ON_PHB_0 = (
    ("-nic", "user,model=e1000"), ("-net", "nic,model=virtio"), ("--nic", "user,model=virtio-net-pci"), ("-usb",),
    ("-M", "pseries,usb=on"), ("-vga", "std"), ("-audio", "none,model=ac97"), ("-device", "edu"),
    ("-virtfs", "local,path=/,mount_tag=t,security_model=none"), ("-device", "driver=edu"),
    ("-drive", "if=virtio,file=null-co://,format=raw"), ("-device", "edu,bus=pci.0"),
)  # fmt: skip
"""One device on PHB 0, at no slot of its own."""

NOT_ON_PCI = (
    ("-nic", "user"), ("-nic", "none"), ("-nic", "user,model=spapr-vlan"), ("-net", "nic"), ("-net", "user"),
    ("-net", "nic,model=ibmveth"), ("-vga", "none"), ("-M", "pseries"), ("-display", "none"),
    ("-drive", "if=none,file=null-co://,format=raw"),
)  # fmt: skip

PHB_INDEXES = (("1", 1), ("01", 1), ("010", 8), ("0x0a", 10), ("08", None), ("one", None))
"""The index of a spapr-pci-host-bridge, as written and as QEMU reads it."""

SLOTS = (
    ("edu,addr=3", 3), ("edu,bus=pci.0,addr=010", 16), ("edu,addr=0x1f.7", 31), ("edu,addr=a", 10),
    ('{"driver": "edu", "bus": "pci.0", "addr": "5.1"}', 5), ('{"driver": "edu", "bus": "pci.0", "addr": 25}', 3),
)  # fmt: skip
"""A device on PHB 0, and its slot."""
