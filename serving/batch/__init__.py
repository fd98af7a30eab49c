"""Recognise many pictures without a server: names of files in, rows of results out."""
