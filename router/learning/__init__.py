"""Learning from served traffic: the decision log, exploration, what-if, always-valid comparison."""
