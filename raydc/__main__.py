"""`python -m raydc` is the `raydc` command."""

from raydc.cli import main

main()
