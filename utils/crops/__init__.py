"""Training samples: crops of recordings, augmented and batched."""
