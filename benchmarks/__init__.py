"""Benchmarks that print raydc's speed figures; see benchmarks/README.md."""
