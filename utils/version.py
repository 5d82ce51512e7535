"""The version of the toolkit: of its scripts, its service and its interface."""

__version__ = "2.2.0"
