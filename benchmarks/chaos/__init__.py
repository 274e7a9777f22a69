"""Studies under faults: processes killed by their ids, servers stopped, files damaged; see `__main__`."""
