"""The demonstration that `install.sh --try` runs on a throwaway libvirt host."""
