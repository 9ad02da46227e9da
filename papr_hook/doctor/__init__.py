"""Examine a host and its running guests, as papr-hook doctor does.

What libvirt, QEMU, systemd and the kernel say is read at the edge, by read_hook, read_gateway and read_security, and
becomes the data classes in facts. judge and guest make findings of them, and read nothing.
"""
