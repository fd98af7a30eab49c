"""How far to trust a finished network: temperature and novelty score."""
