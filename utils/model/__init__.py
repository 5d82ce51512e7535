"""Model files and the one way from a recording to an embedding."""
