"""`python -m raydc` is the `raydc` command."""

from raydc.commands.app import main

main()
