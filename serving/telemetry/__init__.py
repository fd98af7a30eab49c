"""Metrics, timings and logs of the service."""
