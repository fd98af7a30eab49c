"""The corrections of visitors: what is stored, and where."""
