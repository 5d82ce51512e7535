"""Exports the network to the formats of other runtimes."""
