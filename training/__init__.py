"""Training: from a data set to a run folder. This package imports neither export nor serving."""
