"""Put the gateway in front of libvirt's sockets, and take it away again.

`host` queries systemd and libvirt's sockets, `plan` decides which files and services change, `transaction` changes
files together or not at all, `apply` carries a plan out and undoes it if a step fails.
"""
