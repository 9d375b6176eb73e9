"""Arrays and token ids -> an answer: the graphs' network, the token loop, what comes out and what it cost."""
