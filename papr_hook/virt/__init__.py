"""libvirt: its files, which the hook may read, and its API, which the hook must not call."""
