"""How far to trust a finished network: calibration temperature and novelty score."""
