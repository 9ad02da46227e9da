"""One module of tests for each module of papr_hook; none needs root or libvirt."""
