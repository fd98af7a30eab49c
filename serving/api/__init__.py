"""The HTTP surfaces, one file each."""
