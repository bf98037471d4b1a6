"""Forward passes over packed texts: packing, sizes, attention, linear layers, the output layer."""
