"""Developer tools: they generate files of this repository from its code."""
