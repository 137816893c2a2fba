"""The loop: turns. It alone knows every stage; stages never know each other."""
