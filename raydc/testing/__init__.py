"""Contract tests that authors of plugins can run."""
