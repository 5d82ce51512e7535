"""Recordings: decoded, measured, searched for speech, turned into spectrograms, recorded."""
