"""Forward passes over packed texts: attention, linear layers, the output layer."""
