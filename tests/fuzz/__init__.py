"""Readers of files from others under made and mutated inputs: `pytest tests/fuzz`, and `make fuzz`."""
