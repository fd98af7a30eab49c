"""The training data: where it comes from, and the images and labels in memory."""
