"""What prints raydc's speed figures; see benchmarks/README.md."""
