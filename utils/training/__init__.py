"""The training run, its options, losses and validation."""
