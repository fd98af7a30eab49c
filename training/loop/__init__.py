"""The training loop and its parts: step, state, record, optimizers, several processes."""
