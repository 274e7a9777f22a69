"""Searches: points asked of Optuna, judged and told."""
