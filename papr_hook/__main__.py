"""python3 -m papr_hook is the papr-hook command."""

from .cli import run

run()
