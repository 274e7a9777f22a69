"""Analysis of results tables: laws, frontiers, worth. Works on anyone's results."""
