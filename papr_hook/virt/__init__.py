"""libvirt: its API, and the files that it keeps."""
