"""The infrastructure: one module per stack, and the settings that they are made from."""
