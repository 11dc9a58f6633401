"""Data that comes with a package: emoji, stamps, easy-VQA."""
