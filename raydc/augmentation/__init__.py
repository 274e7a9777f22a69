"""Views: augmented versions of a set, as pure functions of their name."""
