"""Model bundle -> HTTP. Never imports torch."""
