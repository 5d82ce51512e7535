"""Which files count as recordings."""

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aiff", ".aif"})
AUDIO_SUFFIXES |= {".au", ".caf", ".m4a", ".aac", ".amr", ".mp4", ".mov", ".3gp", ".wma", ".webm"}
"""Suffixes, in lower case, of the files in folders that are taken for recordings; what is in them
tells whether they can be read."""
