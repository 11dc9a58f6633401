"""Systems that read log-mel spectrograms."""
