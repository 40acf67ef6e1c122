"""Typed settings: one schema per folder of conf/, rules between them, loading."""
