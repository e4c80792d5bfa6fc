"""The recipe: its schema, how its layers are merged, YAML, and the rules between keys. No torch."""
