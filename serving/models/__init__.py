"""Model bundles: their files, their session, and the repository that loads them."""
