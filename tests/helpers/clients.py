"""Clients of libvirt other than virsh: programs whose first argument is a URI."""

from __future__ import annotations

CONSOLE = r"""
import libvirt, sys
connection = libvirt.open(sys.argv[1])
stream = connection.newStream()
guest = connection.lookupByName(sys.argv[2])
guest.openConsole(None, stream)
guest.resume()
text = b""
while b"SLOF" not in text:
    text += stream.recv(1024)
stream.send(b"\r")
stream.abort()
print("seen")
"""
"""For libvirt-python: show a guest's console, whose name is the second argument, and send it a key."""

EVENTS = """
import libvirt, sys
libvirt.virEventRegisterDefaultImpl()
connection = libvirt.open(sys.argv[1])
connection.setKeepAlive(1, 5)
seen = []
connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, lambda *a: seen.append(a[2]), None)
libvirt.virEventAddTimeout(200, lambda *a: None, None)
connection.createXML(sys.argv[2], libvirt.VIR_DOMAIN_START_PAUSED).destroy()
while libvirt.VIR_DOMAIN_EVENT_STOPPED not in seen:
    libvirt.virEventRunDefaultImpl()
print(libvirt.VIR_DOMAIN_EVENT_STARTED in seen, connection.isAlive())
"""
"""For libvirt-python: create a guest of the definition in the second argument, and say whether its events came."""

PERL = """
use Sys::Virt;
my $c = Sys::Virt->new(uri => $ARGV[0]);
my $g = $c->define_domain($ARGV[1]);
$g->create(Sys::Virt::Domain::START_PAUSED);
print $g->get_name(), " ", $g->is_active(), "\\n";
"""
"""For Sys::Virt: define a guest of the definition in the second argument, start it, and print its name and state."""
