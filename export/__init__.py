"""Export: from a run folder to a verified model bundle. This package imports both training and serving."""
