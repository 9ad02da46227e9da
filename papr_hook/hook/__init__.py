"""The qemu hook: refuses non-compliant cold starts and lets everything else through."""
