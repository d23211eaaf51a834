"""Training of a network: batches, losses, schedules, checkpoints, evaluation."""
