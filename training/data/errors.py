"""The errors of the training data."""

from __future__ import annotations


class DataError(Exception):
    """A data set is missing, damaged, or not fit for training. The message gives the reason and the way out."""


class SourceError(Exception):
    """One source cannot give the data set. The message says why."""
