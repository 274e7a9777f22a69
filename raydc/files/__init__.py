"""Reading files with limits, and writing them atomically."""
