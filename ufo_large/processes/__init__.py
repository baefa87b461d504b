"""The process itself: its signs of life, and its end with the process that started it."""
