"""A curriculum's stages and how far they are."""
