"""How the packaged archives were made. Never imported at run time."""
