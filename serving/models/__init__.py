"""Model bundles on disk and in memory."""
