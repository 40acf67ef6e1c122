"""Judges: what is asked of a model that grades answers, and how its replies are got and kept."""
