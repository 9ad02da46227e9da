"""Properties of layouts, over generated domain XML."""
