"""The request path without HTTP: admission, batching, the pipeline, worker threads."""
