"""What the host is: its PCI devices, IOMMU groups, NUMA nodes and libvirt networks."""
