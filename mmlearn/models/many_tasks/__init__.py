"""One model that does many tasks: it is told which, and answers with words, places or picture codes."""
