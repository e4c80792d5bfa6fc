"""Recipes shipped with dlkit, one YAML file each."""
