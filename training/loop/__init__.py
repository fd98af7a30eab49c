"""The training loop and what it needs: step, state, record, optimizers, several processes."""
