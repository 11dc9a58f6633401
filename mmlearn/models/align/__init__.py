"""Systems that align image and text embeddings before they fuse both."""
