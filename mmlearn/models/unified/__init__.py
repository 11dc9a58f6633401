"""One encoder, any modality: one objective for text, pictures and sound, or one network that reads several of them."""
