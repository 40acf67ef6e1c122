"""The shipped miniature: towers, bases and tokenizer, and a manifest that names their bytes."""
