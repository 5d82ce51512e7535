"""Who is enrolled: the stores of voices, in a folder and in SQL."""
