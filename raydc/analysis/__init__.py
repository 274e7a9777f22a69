"""Analysis of results tables: laws, frontiers, worth. Also works on results of other programs."""
