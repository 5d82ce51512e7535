"""Training samples: cut out of recordings, changed, put into batches."""
