"""Path, bytes, array -> tiles; videos -> frames, which become tiles too."""
