"""Pages, Markdown and pictures of what runs left."""
