"""MNIST -> checkpoint. Knows nothing of export or serving."""
