"""From an upload to an embedding and to the enrolled voices it is compared with."""
