"""From a prompt's text to one of the nine intents."""
