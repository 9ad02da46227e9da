"""A throwaway libvirt host and a pseries guest, which the tests and the demonstration start."""
