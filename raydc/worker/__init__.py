"""One process on one device: what evaluations need, and the evaluations."""
