"""The commands of `raydc`, by what people do with them; raydc.commands.app puts them together."""
