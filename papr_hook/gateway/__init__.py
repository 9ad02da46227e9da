"""The gateway: it stands in front of libvirt's socket, and lays out definitions on their way to libvirt.

rpc knows the protocol, rewrite what becomes of which call, session one client's conversation; none of them does I/O.
The sockets are all in server.
"""
