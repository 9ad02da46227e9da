"""A throwaway libvirt host and a pseries guest for it: what --try shows, and what the tests run on."""
