"""Learning from teachers: finished networks and a cache of their outputs."""
