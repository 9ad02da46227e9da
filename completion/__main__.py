"""python3 -m completion bash prints the completion for bash, and python3 -m completion zsh that for zsh."""

import sys

from . import bash, zsh
from .arguments import read_commands

print((bash if sys.argv[1:] == ["bash"] else zsh).script(read_commands()), end="")
