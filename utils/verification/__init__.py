"""Scores and what they are worth: metrics, thresholds, probabilities, plots."""
