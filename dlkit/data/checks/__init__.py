"""What `dlkit dataset check` looks for: unreadable images, duplicates, leaks, swapped labels."""
