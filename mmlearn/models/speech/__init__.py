"""Speech without transcripts."""
