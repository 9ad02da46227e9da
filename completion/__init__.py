"""Completion of the command line in bash and zsh, made from the argument parsers of the commands."""
