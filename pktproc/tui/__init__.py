"""The live screen: frozen views go in, key presses come out."""
