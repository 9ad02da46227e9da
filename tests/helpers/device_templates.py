"""Templates of elements in domain XML, from which random domain XML is made."""

from __future__ import annotations

ON_PCI = (
    "<disk type='file' device='disk'><source file='/d{n}'/><target dev='{vd}' bus='virtio'/>{at}</disk>",
    "<disk type='block' device='lun'><source dev='/d{n}'/><target dev='{vd}'/>{at}</disk>",
    "<interface type='user'><mac address='{mac}'/><model type='virtio'/>{at}</interface>",
    "<interface type='bridge'><mac address='{mac}'/><source bridge='b'/><model type='e1000e'/>{at}</interface>",
    "<interface type='network'><mac address='{mac}'/><source network='plain'/>{at}</interface>",
    "<controller type='usb' index='{index}' model='nec-xhci'>{at}</controller>",
    "<controller type='usb' index='{index}' model='pci-ohci'>{at}</controller>",
    "<controller type='usb' index='{index}'>{at}</controller>",
    "<controller type='scsi' index='{index}' model='virtio-scsi'>{at}</controller>",
    "<controller type='scsi' model='lsilogic'>{at}</controller>",
    "<controller type='virtio-serial' index='{index}'>{at}</controller>",
    "<controller type='virtio-serial' index='{index}' ports='4'>{at}</controller>",
    "<controller type='virtio-serial'>{at}</controller>",
    "<controller type='sata' index='{index}'>{at}</controller>",
    "<hostdev mode='subsystem' type='scsi_host'><source protocol='vhost' wwpn='naa.50014056{mac16}'/>{at}</hostdev>",
    "<hostdev mode='subsystem' type='mdev' model='vfio-pci'><source>"
    "<address uuid='c2177883-f1bb-47f0-914d-32a22e3a{mac4}'/></source>{at}</hostdev>",
    "<filesystem type='mount'><source dir='/s{n}'/><target dir='t{n}'/>{at}</filesystem>",
    "<rng model='virtio'><backend model='random'>/dev/urandom</backend>{at}</rng>",
    "<video><model type='vga' vram='16384' heads='1'/>{at}</video>",
    "<video><model type='virtio' heads='1' primary='yes'/>{at}</video>",
    "<video><model type='bochs'/>{at}</video>",
    "<sound model='ich6'>{at}</sound>",
    "<sound model='ac97'>{at}</sound>",
    "<input type='tablet' bus='virtio'>{at}</input>",
    "<input type='passthrough' bus='virtio'><source evdev='/dev/input/e{n}'/>{at}</input>",
    "<watchdog model='i6300esb' action='reset'>{at}</watchdog>",
    "<shmem name='s{n}'><model type='ivshmem-plain'/><size unit='M'>4</size>{at}</shmem>",
    "<serial type='pty'><target type='pci-serial' port='{index}'/>{at}</serial>",
    "<memory model='virtio-mem'><target><size unit='KiB'>131072</size><node>0</node><block unit='KiB'>2048</block>"
    "<requested unit='KiB'>0</requested></target>{at}</memory>",
    "<memballoon model='virtio'>{at}</memballoon>",
    "<vsock model='virtio'><cid auto='no' address='{index}'/>{at}</vsock>",
)
"""Devices that sit on PCI. n: a number; vd, mac, index: made of it; at: where the address goes."""

ELSEWHERE = (
    "<disk type='file' device='cdrom'><source file='/d{n}'/><target dev='{sd}' bus='scsi'/></disk>",
    "<disk type='file' device='disk'><source file='/d{n}'/><target dev='{sd}' bus='sata'/></disk>",
    "<disk type='file' device='disk'><source file='/d{n}'/><target dev='{sd}' bus='usb'/></disk>",
    "<disk type='file' device='disk'><source file='/d{n}'/><target dev='{sd}' bus='sata'/>"
    "<address type='drive' controller='1' bus='0' target='0' unit='0'/></disk>",
    "<interface type='user'><mac address='{mac}'/><model type='spapr-vlan'/></interface>",
    "<interface type='user'><mac address='{mac}'/><model type='spapr-vlan'/>"
    "<address type='spapr-vio' reg='0x1{index}000'/></interface>",
    "<interface type='user'><mac address='{mac}'/><model type='usb-net'/></interface>",
    "<controller type='scsi' index='{index}'/>",
    "<controller type='scsi' index='{index}' model='ibmvscsi'><address type='spapr-vio' reg='0x2000'/></controller>",
    "<controller type='usb' index='{index}' model='qusb2'/>",
    "<controller type='ccid' index='{index}'/>",
    "<hostdev mode='subsystem' type='usb'><source><vendor id='0x1234'/><product id='0xbeef'/></source></hostdev>",
    "<hostdev mode='subsystem' type='scsi'><source><adapter name='scsi_host{n}'/>"
    "<address bus='0' target='0' unit='0'/></source></hostdev>",
    "<hostdev mode='subsystem' type='pci'><source><address domain='0' bus='9' slot='{slot}' function='0'/></source>"
    "<address type='unassigned'/></hostdev>",
    "<video><model type='none'/></video>",
    "<video><model type='ramfb' heads='1' primary='yes'/></video>",
    "<sound model='usb'/>",
    "<input type='tablet' bus='usb'/>",
    "<serial type='pty'><target type='spapr-vio-serial' port='{index}'/>"
    "<address type='spapr-vio' reg='0x30000000'/></serial>",
    "<channel type='unix'><target type='virtio' name='org.x.{n}'/></channel>",
    "<channel type='unix'><target type='virtio' name='org.x.{n}'/>"
    "<address type='virtio-serial' controller='{few}' bus='0' port='{index}'/></channel>",
    "<console type='pty'><target type='virtio' port='{index}'/></console>",
    "<console type='pty'><target type='serial' port='0'/></console>",
    "<graphics type='vnc' port='-1' autoport='yes' passwd='se&amp;cret&quot;'/>",
    "<memory model='dimm'><target><size unit='KiB'>131072</size><node>0</node></target></memory>",
    "<panic model='pseries'/>",
    "<tpm model='tpm-spapr'><backend type='emulator' version='2.0'/></tpm>",
    "<nvram><address type='spapr-vio' reg='0x3000'/></nvram>",
    "<redirdev bus='usb' type='spicevmc'/>",
    "<hub type='usb'/>",
    "<emulator>/usr/bin/qemu-system-ppc64</emulator>",
    "<memballoon model='none'/>",
    "<!-- a person's <words> & signs -->",
    "<?target here?>",
)
"""What sits elsewhere, or is no device."""

STRANGE = (
    "<controller type='nvme' index='{index}'>{at}</controller>",
    "<crypto model='virtio' type='qemu'><backend model='builtin' queues='1'/>{at}</crypto>",
    "<filesystem type='mount'><driver type='mtp'/><source dir='/s{n}'/><target dir='t{n}'/></filesystem>",
    "<w:wild xmlns:w='urn:wild'><disk><target bus='virtio'/></disk></w:wild>",
    "<unheard of='it'/>",
)
"""What the schema of one libvirt or another does not have."""

ONCE = frozenset({"emulator", "memballoon", "nvram", "vsock", "watchdog"})
"""What that schema takes once."""
