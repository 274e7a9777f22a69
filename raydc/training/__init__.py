"""Training: losses, schedules, optimizers, the training loop and the test pass."""
