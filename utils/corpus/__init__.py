"""Data lists: reading and checking them, and making them from data sets."""
