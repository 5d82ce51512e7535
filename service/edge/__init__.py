"""What stands before the routes: server, limits, tokens, observation, pages."""
