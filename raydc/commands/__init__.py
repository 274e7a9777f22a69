"""The commands of `raydc`, by what people do with them; raydc.cli puts them together."""
