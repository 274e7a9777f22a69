"""Datasets, their splits, and compressed sets."""
