"""Systems that align picture and text before they fuse them."""
