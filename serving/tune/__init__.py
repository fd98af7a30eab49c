"""``mnist-serve tune``: measure this machine, and find the settings with the highest throughput within a p99."""
