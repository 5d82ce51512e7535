"""Who spoke when in an upload: taken in, worked on in a process of its own, kept for a time."""
