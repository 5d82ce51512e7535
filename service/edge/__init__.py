"""In front of the routes: server, limits, tokens, observation, pages."""
