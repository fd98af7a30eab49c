"""From a model bundle to predictions over HTTP. This package never imports torch."""
