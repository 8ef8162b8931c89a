"""A recipe, checked, expanded into steps with keys, made and kept; what a run found."""
