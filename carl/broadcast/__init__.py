"""How a reward reaches those who pay by it, and what they answer."""
