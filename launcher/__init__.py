"""Starting training, evaluation and demonstrations from a shell or a notebook."""
