"""The voiceprint service: HTTP routes on top of the encoder and the database of utils/."""
