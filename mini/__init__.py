"""The embedded default: a small LLaVA, the pictures it was trained on, and the recipe that made it."""
