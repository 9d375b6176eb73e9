"""The demonstration model: its scenes, its bundle."""
