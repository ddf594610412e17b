"""mode=chat, and chat from Python."""
