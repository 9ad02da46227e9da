"""The qemu hook: refuse the cold start of a guest that does not comply, and let everything else through."""
