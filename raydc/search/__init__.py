"""Searches: points are asked of Optuna, evaluated, and told their values."""
