"""Template tags for the project's own templates."""
