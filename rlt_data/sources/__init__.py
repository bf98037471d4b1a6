"""Public dataset layouts and procedural problems, read into questions."""
