"""Plugins, one short file for each kind of part, as their authors would write them."""
