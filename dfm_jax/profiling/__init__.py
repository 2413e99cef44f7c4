"""How fast a config runs, in how much memory, and where the time goes."""
