"""Pictures: reading them, looking into them, drawing on them."""
