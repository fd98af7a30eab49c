"""From a checkpoint to a certified model bundle. The only package that imports both training and serving."""
