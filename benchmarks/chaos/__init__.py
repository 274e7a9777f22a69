"""Studies under faults: processes killed by id, servers stopped, files damaged; see `__main__`."""
