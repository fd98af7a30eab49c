"""Images and labels: where they come from, and how they are held in memory."""
