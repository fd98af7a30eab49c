"""The opsets in which ONNX files can be written. torch is not needed to know them."""

from __future__ import annotations

# The lowest opset that torch writes here. It gives the same results as a higher one, and older runtimes read it. An
# even lower one would need another form of ReduceMean and ReduceMax.
LOWEST = 18
HIGHEST = 23
DEFAULT = LOWEST
