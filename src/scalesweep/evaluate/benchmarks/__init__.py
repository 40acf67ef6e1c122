"""One file per benchmark: its questions, and the rule by which answers are scored."""
