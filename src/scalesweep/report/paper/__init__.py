"""The paper's tables of scores, with a study's numbers beside the published ones."""
