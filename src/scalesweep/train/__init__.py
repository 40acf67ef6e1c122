"""The shared trainer core: one loop for all stages, sizes and tuning methods."""
