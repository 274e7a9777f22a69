"""Training: losses, schedules, the step, and the test pass."""
