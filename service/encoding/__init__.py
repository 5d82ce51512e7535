"""From an upload to an embedding, and to a comparison with the enrolled voices."""
