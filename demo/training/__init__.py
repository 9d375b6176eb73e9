"""How the demonstration model was made. Not part of the wheel."""
