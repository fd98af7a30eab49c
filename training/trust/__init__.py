"""How far to trust a finished network: calibration temperature, novelty score and acceptance thresholds."""
