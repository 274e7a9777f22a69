"""The commands of `raydc`, grouped by task; raydc.commands.app builds the command line from them."""
