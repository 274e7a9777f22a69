"""Views: augmented versions of a set, as pure functions of seed, epoch and batch."""
