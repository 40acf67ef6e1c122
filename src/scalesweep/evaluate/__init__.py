"""Checkpoints answer questions; answers become scores."""
