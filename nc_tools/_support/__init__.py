"""Internal helpers shared by several packages; nothing here is public."""
