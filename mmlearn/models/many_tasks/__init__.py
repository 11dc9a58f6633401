"""One model that does many tasks: an instruction says which, and it answers with words, locations or image codes."""
