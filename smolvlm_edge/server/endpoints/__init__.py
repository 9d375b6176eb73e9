"""One file for each kind of request: read it, ask the model, word the answer."""
