"""What the service answers: documents and problems."""
