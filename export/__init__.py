"""Checkpoint -> certified model bundle. The only place where training meets serving."""
