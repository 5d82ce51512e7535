"""The networks that turn features into embeddings, and their front ends."""
