"""Distillation: teachers, and a cache of their soft labels."""
