"""Lists of recordings: read, checked, made from the folders of data sets."""
