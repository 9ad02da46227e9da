"""The host as the layout sees it: PCI devices, IOMMU groups, NUMA nodes and libvirt networks.

Everything is read from files, never through libvirt, so that the hook can do it.
"""
