"""A trained model behind HTTP: a page and a JSON endpoint."""
