"""The checks of exercises, one module per chapter; ``exercises`` imports them all."""
