"""The store of artifacts."""
