"""NXmx files: written while data come in, and read back."""
