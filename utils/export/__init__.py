"""The network in the formats of other runtimes."""
