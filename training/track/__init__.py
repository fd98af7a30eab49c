"""Runs as TensorBoard and MLflow show them. Both packages are optional."""
