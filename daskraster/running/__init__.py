"""Arrays into files."""
