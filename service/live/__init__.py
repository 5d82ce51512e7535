"""Live streams: who is speaking in the samples that a client sends as they are recorded."""
